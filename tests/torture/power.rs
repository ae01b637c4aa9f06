//! Power loss: what was not synced is gone, in the worst order that a file system allows.
