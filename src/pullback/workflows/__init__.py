"""Work with files: two images or clouds aligned, a result judged and shown, scans prepared, the demo."""
