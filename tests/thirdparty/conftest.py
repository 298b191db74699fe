"""The stranger's own tests run where it is installed: see test_scow_null."""

collect_ignore = ["scow-null"]
