//! Everything around gotracer that is not gotracer.

mod layouts;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((command, rest)) if command == "layouts" => layouts::run(rest),
        _ => anyhow::bail!("usage: cargo xtask layouts [--check]"),
    }
}
