"""Sources on local disks and object stores."""
