//! The program `tidegate`: parses the command line, runs the command, and exits with its code.

use std::process::ExitCode;
use tidegate::cli::{Cli, exit, usage_error};
use tokio::runtime::{Builder, Runtime};

/// Threads of the runtime at least: the claim loop goes on while a job keeps one of them busy.
const MIN_THREADS: usize = 2;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime can't be started: {error}");
            return ExitCode::from(exit::FAILED);
        }
    };
    let code = runtime.block_on(cli.execute());
    // What still blocks (a name being resolved, say) must not keep a finished command.
    runtime.shutdown_background();
    code
}

fn runtime() -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(MIN_THREADS, usize::from);
    Builder::new_multi_thread()
        .worker_threads(cores.max(MIN_THREADS))
        .enable_all()
        .build()
}
