//! `simulate`: see [`rm_simulator::cli`].

use std::io::{stderr, stdout};
use std::process::ExitCode;

use rm_simulator::cli;

fn main() -> ExitCode {
    ExitCode::from(cli::run(std::env::args_os().skip(1), &mut stdout(), &mut stderr()))
}
