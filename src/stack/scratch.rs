//! A temporary folder that is removed even when the process that made it is killed.

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{StackError, error::on_file};

/// Waits for the end of its input, that is of the owner, then removes the folder. Servers that died with the owner may
/// need a moment to let go of their files, hence the bounded tries.
const JANITOR: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
tries=0
until rm -rf -- "$1" 2>/dev/null; do
  tries=$((tries + 1))
  [ "$tries" -ge 100 ] && exit 1
  sleep 0.1
done
"#;

/// A temporary folder for private servers and their data.
///
/// It is removed when this value is dropped, and also when the process ends without dropping it: a small shell waits
/// for that. Other users may pass through the folder but not list it, so that a server run by an unprivileged user
/// can have a folder of its own inside.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    janitor: Child,
}

impl Scratch {
    /// Makes a folder under the system's temporary folder.
    ///
    /// # Errors
    /// [`StackError::File`] or [`StackError::Spawn`] when the system refuses.
    pub fn new() -> Result<Self, StackError> {
        let parent = env::temp_dir();
        let folder = tempfile::Builder::new()
            .prefix("tidegate-")
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir_in(&parent)
            .map_err(on_file("make a folder in", parent))?;
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "sh"])
            .arg(folder.path())
            .current_dir("/")
            // Of its own, so that an interrupt from the terminal reaches only the owner.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| StackError::Spawn {
                program: "sh".to_owned(),
                source,
            })?;
        Ok(Self {
            path: folder.keep(),
            janitor,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Closing its input lets the janitor do its work; its tries, and so this wait, are bounded.
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_folder_and_its_content_go_with_the_value() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_path_buf();
        fs::create_dir(path.join("data")).unwrap();
        fs::write(path.join("data/file"), "content").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o711
        );
        drop(scratch);
        assert!(!path.exists());
    }
}
