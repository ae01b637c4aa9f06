//! A test node: replays a recording of a real node and serves its admin API.
