//! Other builds of the daemon: of an older commit, and with deliberate defects. Each is built once, in a folder of its own
//! below `target/faults`, with what this build has compiled of its dependencies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::sync::OnceCell;

/// Why there is no such build.
#[derive(Debug, Clone)]
pub enum NoBuild {
    /// What it is made from is not here.
    Missing(String),
    /// It could not be built.
    Failed(String),
}

/// `target/faults`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("faults")
}

/// The daemon of an older commit.
pub async fn older(commit: &'static str) -> Result<PathBuf, NoBuild> {
    static BUILT: OnceCell<Result<PathBuf, NoBuild>> = OnceCell::const_new();
    let build = || tokio::task::spawn_blocking(move || build_older(commit));
    BUILT
        .get_or_init(|| async { build().await.unwrap() })
        .await
        .clone()
}

/// The daemon with the feature `broken`.
pub async fn broken() -> Result<PathBuf, NoBuild> {
    static BUILT: OnceCell<Result<PathBuf, NoBuild>> = OnceCell::const_new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let build = move || cargo(root, &folder().join("broken"), &["--features", "broken"]);
    BUILT
        .get_or_init(|| async { tokio::task::spawn_blocking(build).await.unwrap() })
        .await
        .clone()
}

fn build_older(commit: &str) -> Result<PathBuf, NoBuild> {
    let root = env!("CARGO_MANIFEST_DIR");
    let source = folder().join(format!("source-{commit}"));
    if !source.join("Cargo.toml").is_file() {
        let known = Command::new("git")
            .args([
                "-C",
                root,
                "cat-file",
                "-e",
                &format!("{commit}^{{commit}}"),
            ])
            .output();
        if !known.is_ok_and(|known| known.status.success()) {
            let what = "is not here: this is no clone with the whole history";
            return Err(NoBuild::Missing(format!("commit {commit} {what}")));
        }
        fs::create_dir_all(&source).map_err(|e| failed(&source, &e))?;
        let script = r#"git -C "$1" archive "$2" | tar -x -C "$3""#;
        run(Command::new("sh")
            .args(["-c", script, "sh", root, commit])
            .arg(&source))?;
    }
    cargo(&source, &folder().join(format!("older-{commit}")), &[])
}

/// Builds the program of a source tree; answers where it is.
fn cargo(source: &Path, target: &Path, more: &[&str]) -> Result<PathBuf, NoBuild> {
    seed(target)?;
    let mut cargo = Command::new("cargo");
    cargo
        // With a bench, dependencies have the same features as for tests, so that what is compiled fits.
        .args([
            "build",
            "--locked",
            "--quiet",
            "--bin",
            "tidegate",
            "--bench",
            "admission",
        ])
        .args(more)
        .arg("--manifest-path")
        .arg(source.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        // Those of the build under test say where *it* is.
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_TARGET_DIR");
    run(&mut cargo)?;
    Ok(target.join("debug/tidegate"))
}

/// Links what is compiled already: the same dependencies need not be compiled again.
fn seed(target: &Path) -> Result<(), NoBuild> {
    let (from, to) = (folder().with_file_name("debug"), target.join("debug"));
    if to.is_dir() || !from.join("deps").is_dir() {
        return Ok(());
    }
    fs::create_dir_all(&to).map_err(|e| failed(&to, &e))?;
    for part in ["deps", "build", ".fingerprint"] {
        run(Command::new("cp").arg("-al").arg(from.join(part)).arg(&to))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<(), NoBuild> {
    let name = format!("{command:?}");
    let output = command
        .output()
        .map_err(|e| NoBuild::Failed(format!("{name}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let told = format!("{name}: {}: {}", output.status, told.trim_end());
    Err(NoBuild::Failed(told))
}

fn failed(path: &Path, e: &std::io::Error) -> NoBuild {
    NoBuild::Failed(format!("{}: {e}", path.display()))
}
