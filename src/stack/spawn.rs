//! Starting a child whose life is tied to this process.
//!
//! The kernel sends a child its parent-death signal when the *thread* that started it ends, so all children are
//! started by one thread that lives as long as the process. The signal is armed by `setpriv`, which becomes the program.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use parking_lot::Mutex;

use super::{StackError, error::on_file, program};

/// Closes the gap in which the parent may have died before the signal was armed: then the parent is another one.
const GUARD: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift; exec "$@""#;

/// The same for a server. To it, a limit on the size of its files is an error, as a full disk is, and not its end.
const SERVER_GUARD: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift; trap '' XFSZ; exec "$@""#;

/// The unprivileged user a program runs as.
#[derive(Debug, Clone)]
pub(super) struct User {
    /// Its name, for messages.
    pub(super) name: String,
    /// Its user id.
    pub(super) uid: u32,
    /// Its primary group id.
    pub(super) gid: u32,
}

/// What to start, and how.
pub(super) struct Launch<'a> {
    /// The program's file.
    pub(super) program: &'a Path,
    /// Its arguments; visible to every user of the machine, so no secrets.
    pub(super) args: Vec<OsString>,
    /// Added to an otherwise empty environment.
    pub(super) env: Vec<(&'static str, String)>,
    /// Its working folder.
    pub(super) dir: &'a Path,
    /// Where its output is appended.
    pub(super) log: &'a Path,
    /// The user it runs as; ours when `None`.
    pub(super) user: Option<&'a User>,
    /// The signal the kernel sends it when this process ends, by `setpriv`'s name for it.
    pub(super) on_parent_death: &'static str,
}

/// Starts a program in a process group of its own, so that an interrupt typed at the terminal reaches only us and the
/// servers stay up while we drain.
pub(super) fn spawn(launch: &Launch<'_>) -> Result<Child, StackError> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(launch.log)
        .map_err(on_file("open", launch.log))?;
    let log_too = log.try_clone().map_err(on_file("open", launch.log))?;
    let mut command = Command::new(program::setpriv()?);
    if let Some(user) = launch.user {
        command.args([
            "--reuid",
            &user.uid.to_string(),
            "--regid",
            &user.gid.to_string(),
            "--clear-groups",
        ]);
    }
    command
        .args([
            "--pdeathsig",
            launch.on_parent_death,
            "--",
            "sh",
            "-c",
            SERVER_GUARD,
            "sh",
        ])
        .arg(std::process::id().to_string())
        .arg(launch.program)
        .args(&launch.args)
        // The user's PGHOST, LANG and the like must not reach a private server.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("LC_ALL", "C"), ("TZ", "UTC")])
        .envs(
            launch
                .env
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        )
        .current_dir(launch.dir)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_too);
    on_spawner(command).map_err(|source| StackError::Spawn {
        program: launch.program.display().to_string(),
        source,
    })
}

/// Starts a command of the user's on our terminal, in our folder and process group, with `env` added to our
/// environment. When this process ends, in whatever way, it is told to (SIGTERM). A program that is not found ends with
/// exit code 127.
///
/// # Errors
/// [`StackError::Missing`] or [`StackError::Spawn`] when it could not be started.
pub fn spawn_command(
    words: &[OsString],
    env: &[(&'static str, OsString)],
) -> Result<Child, StackError> {
    let mut command = Command::new(program::setpriv()?);
    command
        .args(["--pdeathsig", "TERM", "--", "sh", "-c", GUARD, "sh"])
        .arg(std::process::id().to_string())
        .args(words)
        .envs(env.iter().map(|(name, value)| (name, value)));
    on_spawner(command).map_err(|source| StackError::Spawn {
        program: words
            .first()
            .map_or_else(String::new, |w| w.display().to_string()),
        source,
    })
}

/// A command for the spawner thread, and where the outcome goes.
struct Order {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

/// Runs the command on the one thread that never ends, started on first use.
fn on_spawner(command: Command) -> io::Result<Child> {
    static SPAWNER: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);
    let (reply, outcome) = mpsc::channel();
    {
        let mut spawner = SPAWNER.lock();
        let orders = match &*spawner {
            Some(orders) => orders,
            None => spawner.insert(start_spawner()?),
        };
        // The thread ends only with the process: its sender lives in a static.
        orders
            .send(Order { command, reply })
            .map_err(io::Error::other)?;
    }
    outcome.recv().map_err(io::Error::other)?
}

fn start_spawner() -> io::Result<mpsc::Sender<Order>> {
    let (orders, inbox) = mpsc::channel::<Order>();
    thread::Builder::new()
        .name("stack-spawner".to_owned())
        .spawn(move || {
            for Order { mut command, reply } in inbox {
                let _ = reply.send(command.spawn());
            }
        })?;
    Ok(orders)
}
