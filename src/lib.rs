//! `kbackup` backs up the files of a running KurrentDB / `EventStoreDB` node and brings them back.
