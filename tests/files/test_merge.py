"""Tables of labels: what becomes of each, and what is refused."""

import pytest
import torch

from pullback.errors import InputError
from pullback.files import Merge, read_merge
from pullback.numerics.random import make_generator
from pullback.space import Grid, Labels


def labels(ndim=3) -> Labels:
    grid = Grid.centred((5, 6, 4)[:ndim])
    return Labels(torch.randint(0, 60, (1, 1, *grid.shape), generator=make_generator(0)).to(torch.uint8), grid)


def table(tmp_path, text):
    (tmp_path / "merge.csv").write_text(text)
    return tmp_path / "merge.csv"


@pytest.mark.parametrize("ndim", [2, 3])
def test_each_label_becomes_what_the_table_says(ndim):
    given = labels(ndim)
    merge = Merge({17: 1, 53: 1, 2: 0}, {1: "hippocampus"})
    out = merge(given)
    assert torch.equal(out.data == 1, (given.data == 17) | (given.data == 53) | (given.data == 1))
    assert not (out.data == 2).any()
    kept = ~torch.isin(given.data, torch.tensor([17, 53, 2]))
    assert torch.equal(out.data[kept], given.data[kept].long())
    only = Merge(merge.table, merge.names, drop=True)(given)
    assert set(only.data.unique().tolist()) == {0, 1}
    assert torch.equal(only.data == 1, (given.data == 17) | (given.data == 53))


def test_the_identity_and_one_after_the_other():
    """A table applied twice is applied once where what comes out maps to itself."""
    given = labels()
    assert torch.equal(Merge({}, {})(given).data, given.data.long())
    merge = Merge({n: n % 7 for n in range(60)}, {})
    assert torch.equal(merge(merge(given)).data, given.data.long() % 7)


def test_a_table_is_read(tmp_path):
    path = table(tmp_path, "\ufeffName, Label ,side,merged\nhippocampus,17,left,1\nhippocampus, 53,right,1\n,2,,0\n\n")
    assert read_merge(path) == Merge({17: 1, 53: 1, 2: 0}, {1: "hippocampus"})
    assert read_merge(path, drop=True).drop
    assert read_merge(table(tmp_path, "label,merged\n-3,255\n")).table == {-3: 255}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one column 'label'"),
        ("label,name\n17,left\n", "one column 'merged'.*label,name"),
        ("label,merged,label\n1,2,3\n", "one column 'label'"),
        ("label,merged\n", "no row"),
        ("label,merged\n17,1\n17,2\n", "line 3: label 17 stands in the table twice"),
        ("label,merged\n17,1\n17,1\n", "line 3: label 17 stands in the table twice"),
        ("label,merged\n17,one\n", "line 2 has no whole numbers"),
        ("label,merged\n1.5,1\n", "line 2 has no whole numbers"),
        ("label,merged\n17\n", "line 2 has no whole numbers"),
        ("label,merged\n17,256\n", "line 2: merged labels are 0 to 255"),
        ("label,merged\n17,-1\n", "line 2: merged labels are 0 to 255"),
        ("label,merged\n0,1\n", "label 0 is background"),
        ("label,merged,name\n17,1,left\n53,1,right\n", "line 3: 1 is 'right' and, above, 'left'"),
    ],
)
def test_tables_that_are_none(tmp_path, text, message):
    with pytest.raises(InputError, match=rf"merge\.csv: .*{message}"):
        read_merge(table(tmp_path, text))


def test_no_table_at_all(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: not a table"):
        read_merge(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match=r"bytes\.csv: not a table"):
        read_merge(tmp_path / "bytes.csv")
