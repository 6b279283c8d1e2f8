//! Relabelling: Prometheus's actions on a label set, as data and as a pure function.
