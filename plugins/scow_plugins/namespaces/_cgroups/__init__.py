"""Control groups, versions 1, 2 and both: `layout` where they are, `limits` what is written, `group` who is in."""
