//! The `gotracer` binary: hands over to [`gotracer::cli`], which holds every command.

fn main() -> std::process::ExitCode {
    gotracer::cli::main()
}
