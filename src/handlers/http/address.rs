//! Which addresses a job may call.
//!
//! Owns: the classes of addresses, after the IANA special-purpose registries. An address that carries another one inside
//! it (IPv4-mapped and -compatible, NAT64, 6to4) is what the inner one is: that is where the packets end up. Pure: must
//! not know names, URLs or settings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What stands behind an address, as far as its number tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A host on the internet.
    Public,
    /// This machine or a private network: only where the operator allows it.
    Private,
    /// Nothing a job has any business with: link-local, metadata services, multicast, unspecified, reserved.
    Never,
}

/// Metadata and host services of the large clouds that are not link-local.
const METADATA: [IpAddr; 4] = [
    // Alibaba Cloud.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Azure's host service, whose address looks public.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Oracle Cloud.
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    // AWS over IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The class of an address.
pub(super) fn class(address: IpAddr) -> Class {
    if METADATA.contains(&address) {
        return Class::Never;
    }
    match address {
        IpAddr::V4(v4) => class_v4(v4),
        IpAddr::V6(v6) => class_v6(v6),
    }
}

const fn class_v4(v4: Ipv4Addr) -> Class {
    match v4.octets() {
        // This network, link-local, multicast, reserved and broadcast.
        [0 | 224.., ..] | [169, 254, ..] => Class::Never,
        // RFC 1918, loopback, carrier-grade NAT, protocol assignments, documentation, benchmarks.
        [10 | 127, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [192, 0, 0 | 2, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Class::Private,
        _ => Class::Public,
    }
}

fn class_v6(v6: Ipv6Addr) -> Class {
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Never,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Private,
        // IPv4-compatible, IPv4-mapped, and the well-known prefix of NAT64.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            class(IpAddr::V4(inner_v4(high, low)))
        }
        // 6to4.
        [0x2002, high, low, ..] => class(IpAddr::V4(inner_v4(high, low))),
        // Link-local, multicast, and Teredo, whose inner address is anybody's.
        [0xfe80..=0xfebf | 0xff00..=0xffff, ..] | [0x2001, 0, ..] => Class::Never,
        // Unique local, the former site-local, local NAT64, documentation.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] | [0x2001, 0xdb8, ..] => {
            Class::Private
        }
        // What is not yet given to anybody.
        [0x2000..=0x3fff, ..] => Class::Public,
        _ => Class::Never,
    }
}

fn inner_v4(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn all(expected: Class, addresses: &[&str]) {
        for address in addresses {
            assert_eq!(class(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn addresses_fall_into_their_classes() {
        all(
            Class::Public,
            &[
                "1.1.1.1",
                "172.32.0.1",
                "100.128.0.1",
                "2606:4700::1111",
                "::ffff:1.1.1.1",
                "64:ff9b::1.1.1.1",
            ],
        );
        all(
            Class::Private,
            &[
                "127.0.0.1",
                "127.255.255.254",
                "10.0.0.1",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.1.1",
                "100.64.0.1",
                "198.19.0.1",
                "::1",
                "fd12::1",
                "fec0::1",
                "::ffff:127.0.0.1",
                "::ffff:10.0.0.1",
                "64:ff9b::10.0.0.1",
                "2002:7f00:1::",
                "::127.0.0.1",
            ],
        );
        all(
            Class::Never,
            &[
                "0.0.0.0",
                "0.1.2.3",
                "169.254.169.254",
                "169.254.0.1",
                "224.0.0.1",
                "255.255.255.255",
                "240.0.0.1",
                "::",
                "fe80::1",
                "febf::1",
                "ff02::1",
                "::ffff:169.254.169.254",
                "64:ff9b::169.254.169.254",
                "2002:a9fe:a9fe::",
                "fd00:ec2::254",
                "100.100.100.200",
                "::ffff:100.100.100.200",
                "168.63.129.16",
                "2001::1",
                "::ffff:0.0.0.0",
            ],
        );
    }
}
