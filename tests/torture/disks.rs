//! Full and failing disks: each write, sync and rename may be the one that fails.
