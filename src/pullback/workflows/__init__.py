"""What people do with files: two images or clouds aligned, a result told and shown, scans prepared, the demo."""
