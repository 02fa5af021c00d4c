"""Records as CSV come back."""

from pullback.records.csv_records import read_csv, read_texts, write_csv

RECORDS = [{"subject": "007", "dice": 0.5}, {"subject": "b, c", "dice": 1.0, "note": 'said "so"'}]


def test_there_and_back(tmp_path):
    write_csv(RECORDS, tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv") == [{"subject": 7.0, "dice": 0.5}, RECORDS[1]]
    assert read_texts(tmp_path / "a.csv") == [
        {"subject": "007", "dice": "0.5", "note": ""},
        {"subject": "b, c", "dice": "1.0", "note": 'said "so"'},
    ]
