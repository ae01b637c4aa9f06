//! Many files, many backups, few descriptors, little memory, few rights.
