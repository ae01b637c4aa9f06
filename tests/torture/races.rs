//! A source that changes between any two steps, clocks that jump, two runs at once.
