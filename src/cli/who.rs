//! Who runs a command: what histories and records of operators' acts name.

/// `user@host`. A user without a name is a number.
#[must_use]
pub(super) fn who() -> String {
    let named = |name| std::env::var(name).ok().filter(|user| is_plain(user));
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(named)
        .unwrap_or_else(|| rustix::process::getuid().as_raw().to_string());
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    format!("{user}@{host}")
}

fn is_plain(user: &str) -> bool {
    !user.is_empty() && user.len() <= 64 && user.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    #[test]
    fn somebody_somewhere() {
        let who = super::who();
        let (user, host) = who.split_once('@').unwrap_or_default();
        assert!(!user.is_empty() && !host.is_empty(), "{who}");
    }
}
