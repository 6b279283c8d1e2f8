//! URLs of HTTP requests: parsing, redirects, what may be shown, who may see credentials.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::Uri;

/// An absolute `http` or `https` URL with a host. Its user information is kept apart, so that it is never sent or
/// shown as part of the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    uri: Uri,
    user_info: Option<crate::Secret>,
}

impl Url {
    /// Parses `text`; the error names what is wrong without repeating the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rest = text.split_once("://").ok_or("URL has no scheme")?;
        let scheme = rest.0.to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err("URL scheme must be 'http' or 'https'".into());
        }
        let rest = rest.1.split('#').next().unwrap_or("");
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(decode_percent(user)), host),
            None => (None, authority),
        };
        if host.is_empty() || host.starts_with(':') {
            return Err("host is missing in URL".into());
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        let uri = format!("{scheme}://{host}{slash}{}", encode_forbidden(path));
        let uri = uri.parse::<Uri>().map_err(|e| format!("invalid URL: {e}"))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err("host is missing in URL".into());
        }
        Ok(Self { uri, user_info: user.map(crate::Secret::new) })
    }

    /// The URL without user information.
    pub(crate) fn uri(&self) -> Uri {
        self.uri.clone()
    }

    /// `user:password`, decoded.
    pub(crate) fn user_info(&self) -> Option<&str> {
        self.user_info.as_ref().map(crate::Secret::expose)
    }

    /// The URL as it may be shown: with the user's name but `xxxxx` for a password.
    pub(crate) fn redacted(&self) -> String {
        let text = self.uri.to_string();
        let Some(user) = self.user_info() else { return text };
        let shown = match user.split_once(':') {
            Some((name, _)) => format!("{name}:xxxxx@"),
            None => format!("{user}@"),
        };
        text.replacen("://", &format!("://{shown}"), 1)
    }

    /// Whether it is an `https` URL.
    pub(crate) fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The host without brackets, lower case.
    pub(crate) fn host(&self) -> String {
        self.uri.host().unwrap_or("").trim_matches(['[', ']']).to_ascii_lowercase()
    }

    /// The port, by the scheme when none is given.
    pub(crate) fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// The target of a redirect from here to `location`.
    pub(crate) fn join(&self, location: &str) -> Result<Self, String> {
        let base = self.uri.to_string();
        let root_end = base.find("://").map_or(0, |at| at + 3);
        let root_end = base[root_end..].find('/').map_or(base.len(), |at| root_end + at);
        let has_scheme = location.split_once(':').is_some_and(|(scheme, _)| {
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        });
        let text = if has_scheme {
            location.to_owned()
        } else if let Some(rest) = location.strip_prefix("//") {
            format!("{}://{rest}", self.uri.scheme_str().unwrap_or("http"))
        } else if location.starts_with('/') {
            format!("{}{location}", &base[..root_end])
        } else if location.starts_with('?') {
            format!("{}{}{location}", &base[..root_end], self.uri.path())
        } else {
            let path = self.uri.path();
            let folder = &path[..path.rfind('/').map_or(0, |at| at + 1)];
            format!("{}{folder}{location}", &base[..root_end])
        };
        Self::parse(&text).map_err(|reason| format!("redirect refused: {reason}"))
    }

    /// Whether credentials meant for `origin` may be sent here: the same host or one below it, and not from TLS to
    /// plain text.
    pub(crate) fn may_share_credentials_of(&self, origin: &Self) -> bool {
        let (host, parent) = (self.host(), origin.host());
        let below = || {
            parent.parse::<IpAddr>().is_err()
                && host.strip_suffix(&parent).is_some_and(|front| front.ends_with('.'))
        };
        (host == parent || below()) && (self.is_https() || !origin.is_https())
    }

    /// Whether the host is written as a link-local address (cloud metadata services live there).
    pub(crate) fn is_link_local(&self) -> bool {
        match self.host().parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => ip.is_link_local(),
            Ok(IpAddr::V6(ip)) => {
                ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_link_local())
            }
            Err(_) => false,
        }
    }
}

/// Encodes the bytes that may not stand in a URL at all.
fn encode_forbidden(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c) {
            out.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // Writing into a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn decode_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn urls_are_parsed_and_shown_without_passwords() {
        assert_eq!(url("http://a:81/m?x=1").uri().to_string(), "http://a:81/m?x=1");
        assert_eq!(url("HTTPS://a").uri().to_string(), "https://a/");
        assert_eq!(url("http://a?x").uri().to_string(), "http://a/?x");
        assert_eq!(url("http://a/ü b").uri().to_string(), "http://a/%C3%BC%20b");
        let with_user = url("http://us%40er:pa%3Ass@a/m");
        assert_eq!(with_user.user_info(), Some("us@er:pa:ss"));
        assert_eq!(with_user.redacted(), "http://us@er:xxxxx@a/m");
        assert_eq!(with_user.uri().to_string(), "http://a/m");
        assert!(!format!("{with_user:?}").contains("ss"));
        for bad in ["a:80", "ftp://a", "http://", "http://:80/", "http:///x", "http://a b/", "http://[::1/"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn redirects_resolve() {
        let base = url("http://a:81/x/y?q");
        for (location, want) in [
            ("/z", "http://a:81/z"),
            ("z?p=1", "http://a:81/x/z?p=1"),
            ("?p", "http://a:81/x/y?p"),
            ("//b/z", "http://b/z"),
            ("https://b:1/", "https://b:1/"),
        ] {
            assert_eq!(base.join(location).unwrap().uri().to_string(), want);
        }
        assert!(base.join("file:///etc/passwd").is_err());
        assert!(base.join("javascript:x").is_err());
    }

    #[test]
    fn credentials_stay_with_their_host() {
        let share = |to: &str, origin: &str| url(to).may_share_credentials_of(&url(origin));
        assert!(share("http://a:82/", "http://a:81/"));
        assert!(share("https://sub.a.org/", "http://A.org/"));
        assert!(!share("http://a.org/", "https://a.org/"));
        assert!(!share("http://evila.org/", "http://a.org/"));
        assert!(!share("http://a.org/", "http://sub.a.org/"));
        assert!(!share("http://1.10.0.0.1/", "http://10.0.0.1/"));
        assert!(url("http://169.254.169.254/").is_link_local() && url("http://[fe80::1]/").is_link_local());
        assert!(url("http://[::ffff:169.254.169.254]/").is_link_local());
        assert!(!url("http://10.0.0.1/").is_link_local());
    }
}
