//! Manifests, links and servers that mean harm; secrets that must not leak.
