//! As much of Redis's protocol as it takes to tell where one message ends and the next begins.

/// How long the first whole message in `bytes` is; none if it is not all there yet.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    // Elements still to come, over all levels of nesting.
    let mut left = 1_u64;
    while left > 0 {
        let line_end = at + bytes.get(at..)?.windows(2).position(|w| w == b"\r\n")?;
        let kind = *bytes.get(at)?;
        let text = std::str::from_utf8(&bytes[at + 1..line_end]).unwrap_or_default();
        let count: i64 = text.parse().unwrap_or(-1);
        at = line_end + 2;
        left -= 1;
        match kind {
            b'$' | b'=' | b'!' if count >= 0 => {
                at += usize::try_from(count).ok()? + 2;
                if at > bytes.len() {
                    return None;
                }
            }
            b'*' | b'~' | b'>' if count > 0 => left += count.unsigned_abs(),
            b'%' if count > 0 => left += 2 * count.unsigned_abs(),
            _ => {}
        }
    }
    Some(at)
}

/// Whether a message came by itself, as answer to nothing.
pub fn is_push(message: &[u8]) -> bool {
    message.first() == Some(&b'>')
}
