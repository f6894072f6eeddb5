//! Empty on purpose: `worker-build` lists this crate among its dependencies and calls nothing in it.
