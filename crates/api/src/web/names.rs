//! The subject alternative names of a certificate: a reader of just that part of its DER, for `client_allowed_sans`.
//!
//! The certificate has been verified, or at least parsed, by the TLS library before; here everything that is not of
//! the expected form simply gives no names.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The object identifier 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// DNS names, e-mail addresses, IP addresses and URIs of the certificate `der`, as texts.
pub(super) fn alternative_names(der: &[u8]) -> Vec<String> {
    find(der).unwrap_or_default()
}

/// One element: its tag and content; the rest behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        let bytes = length & 0x7f;
        if bytes == 0 || bytes > 4 {
            return None;
        }
        let (coded, after) = rest.split_at_checked(bytes)?;
        length = coded.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn find(der: &[u8]) -> Option<Vec<String>> {
    let (_, certificate, _) = element(der)?;
    let (_, mut fields, _) = element(certificate)?;
    // The extensions have the explicit tag 3 among the fields of the certificate.
    let extensions = loop {
        let (tag, content, rest) = element(fields)?;
        if tag == 0xa3 {
            break content;
        }
        fields = rest;
    };
    let (_, mut list, _) = element(extensions)?;
    while let Some((_, extension, rest)) = element(list) {
        list = rest;
        let (_, id, mut after) = element(extension)?;
        if id != SUBJECT_ALT_NAME {
            continue;
        }
        let (mut tag, mut value, next) = element(after)?;
        if tag == 0x01 {
            // The flag "critical" stands before the value.
            after = next;
            (tag, value, _) = element(after)?;
        }
        if tag != 0x04 {
            return None;
        }
        return names(value);
    }
    None
}

fn names(value: &[u8]) -> Option<Vec<String>> {
    let (_, mut list, _) = element(value)?;
    let mut found = Vec::new();
    while let Some((tag, content, rest)) = element(list) {
        list = rest;
        match tag & 0x1f {
            // rfc822Name, dNSName, uniformResourceIdentifier
            1 | 2 | 6 => found.extend(std::str::from_utf8(content).map(str::to_owned)),
            7 => found.extend(address(content)),
            _ => {}
        }
    }
    Some(found)
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| Ipv6Addr::from(sixteen).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate() -> Vec<u8> {
        let names = ["client.example", "*.example", "10.1.2.3", "::1"].map(str::to_owned);
        let mut params = rcgen::CertificateParams::new(names.to_vec()).unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI("spiffe://x/y".try_into().unwrap()));
        params.subject_alt_names.push(rcgen::SanType::Rfc822Name("a@b.c".try_into().unwrap()));
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn all_kinds_of_names() {
        let found = alternative_names(&certificate());
        assert_eq!(found, ["client.example", "*.example", "10.1.2.3", "::1", "spiffe://x/y", "a@b.c"]);
    }

    proptest! {
        #[test]
        fn damage_gives_other_names_or_none(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut der = certificate();
            let at = at.index(der.len());
            der[at] = to;
            let _ = alternative_names(&der);
            der.truncate(cut.index(der.len()));
            let _ = alternative_names(&der);
        }
    }
}
