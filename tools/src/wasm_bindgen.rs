//! The `wasm-bindgen` command, as far as `worker-build` calls it, on the same library as the original command.
//!
//! The original's package also holds a test runner with a web server and an HTTP client, which take longer to compile
//! than everything else in this folder. An option that is not listed here is refused, so a newer `worker-build` that
//! needs one fails loudly.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use wasm_bindgen_cli_support::Bindgen;

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    Bundler,
    Module,
}

#[derive(Parser)]
#[command(name = "wasm-bindgen", version)]
struct Args {
    /// The wasm file that cargo made.
    input: PathBuf,
    #[arg(long)]
    out_dir: PathBuf,
    #[arg(long)]
    out_name: Option<String>,
    #[arg(long, value_enum, default_value_t = Target::Bundler)]
    target: Target,
    #[arg(long)]
    typescript: bool,
    #[arg(long)]
    no_typescript: bool,
    #[arg(long)]
    debug: bool,
    #[arg(long)]
    no_demangle: bool,
    #[arg(long)]
    keep_debug: bool,
    #[arg(long)]
    omit_default_module_path: bool,
    #[arg(long)]
    split_linked_modules: bool,
    #[arg(long)]
    experimental_reset_state_function: bool,
    #[arg(long)]
    force_enable_abort_handler: bool,
}


fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut bindgen = Bindgen::new();
    match args.target {
        Target::Bundler => bindgen.bundler(true)?,
        Target::Module => bindgen.module(true)?,
    };
    bindgen
        .input_path(&args.input)
        .debug(args.debug)
        .demangle(!args.no_demangle)
        .keep_debug(args.keep_debug)
        .typescript(args.typescript && !args.no_typescript)
        .omit_default_module_path(args.omit_default_module_path)
        .split_linked_modules(args.split_linked_modules)
        .reset_state_function(args.experimental_reset_state_function)
        .force_enable_abort_handler(args.force_enable_abort_handler);
    if let Some(name) = &args.out_name {
        bindgen.out_name(name);
    }
    bindgen.generate(&args.out_dir)
}
