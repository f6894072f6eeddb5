//! The program `simulate`: its arguments, what it prints, and what it exits with.

mod args;
mod capacity;
mod clock;
mod invariants;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};

use lexopt::Parser;

/// All is well.
pub const EXIT_OK: u8 = 0;
/// An invariant is broken.
pub const EXIT_BROKEN: u8 = 1;
/// What was asked makes no sense.
pub const EXIT_USAGE: u8 = 2;

const HELP: &str = "\
simulate: the scheduler without the service around it

  simulate invariants --seeds N    random histories, in which everything goes wrong that can: what must hold is checked
  simulate capacity --workload F   a workload: who waits for how long, what is used, and what it costs

`simulate invariants --help` and `simulate capacity --help` say more.
";

/// Why the program ends without having done what was asked: one sentence.
#[derive(Debug)]
pub struct Refused(String);

impl Refused {
    fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lexopt::Error> for Refused {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self(format!("the output cannot be written: {error}"))
    }
}

/// Does what the arguments (without the program's name) say, and gives back what to exit with.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    out: &mut (impl Write + ?Sized),
    err: &mut (impl Write + Send + ?Sized),
) -> u8 {
    let mut parser = Parser::from_args(args);
    match command(&mut parser, out, err) {
        Ok(code) => code,
        Err(refused) => {
            // There is nowhere left to say that this cannot be written.
            let _ = writeln!(err, "{refused}");
            EXIT_USAGE
        }
    }
}

fn command(
    parser: &mut Parser,
    out: &mut (impl Write + ?Sized),
    err: &mut (impl Write + Send + ?Sized),
) -> Result<u8, Refused> {
    use lexopt::Arg::{Long, Short, Value};
    match parser.next()? {
        Some(Value(name)) if name == "invariants" => invariants::run(parser, out, err),
        Some(Value(name)) if name == "capacity" => capacity::run(parser, out),
        Some(Value(name)) => {
            Err(Refused(format!("there is no `simulate {}`: see simulate --help", name.to_string_lossy())))
        }
        Some(Long("help") | Short('h')) => {
            out.write_all(HELP.as_bytes())?;
            Ok(EXIT_OK)
        }
        Some(other) => Err(other.unexpected().into()),
        None => {
            err.write_all(HELP.as_bytes())?;
            Ok(EXIT_USAGE)
        }
    }
}
