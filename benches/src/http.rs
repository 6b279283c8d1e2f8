//! A blocking HTTP/1.1 client over one keep-alive connection: just what sending and querying a server on loopback needs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// A connection to `host:port`, opened at the first request and again after an error.
#[derive(Debug)]
pub struct Client {
    address: String,
    patience: Duration,
    stream: Option<BufReader<TcpStream>>,
}

/// An answer with its headers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The code.
    pub status: u16,
    /// Header lines, in lower case.
    pub headers: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of header `name` (in lower case), in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    }
}

impl Client {
    /// A client of `address` (`host:port`).
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), patience: Duration::from_secs(120), stream: None }
    }

    /// With so long to wait for more of an answer; 120 s without this.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends a request and gives status and body.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(u16, Vec<u8>)> {
        self.exchange(method, path, headers, body).map(|answer| (answer.status, answer.body))
    }

    /// Sends a request and gives the answer with its headers.
    pub fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let kept = self.stream.is_some();
        let mut answer = self.try_request(method, path, headers, body);
        if kept && answer.as_ref().is_err_and(is_gone) {
            // The server had hung up after the answer before, which shows only now.
            self.stream = None;
            answer = self.try_request(method, path, headers, body);
        }
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let reader = match &mut self.stream {
            Some(reader) => reader,
            empty => {
                let stream = TcpStream::connect(&self.address)
                    .with_context(|| format!("connecting to {}", self.address))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(self.patience))?;
                empty.insert(BufReader::with_capacity(1 << 16, stream))
            }
        };
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n",
            self.address,
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let sent =
            reader.get_mut().write_all(head.as_bytes()).and_then(|()| reader.get_mut().write_all(body));

        // A server may answer and hang up before it has read a body that it refuses.
        let mut line = String::new();
        match (reader.read_line(&mut line), sent) {
            (Ok(length), Ok(())) if length > 0 => {}
            (Ok(length), Err(_)) if length > 0 => {}
            (_, Err(error)) | (Err(error), _) => return Err(error.into()),
            (Ok(_), Ok(())) => bail!("the connection was closed without an answer"),
        }
        let status: u16 =
            line.split(' ').nth(1).and_then(|s| s.parse().ok()).context("the answer has no status line")?;
        let (mut length, mut chunked) = (0usize, false);
        let mut headers = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            chunked |= header.starts_with("transfer-encoding:") && header.contains("chunked");
            headers.push(header);
        }
        let mut answer = vec![0; length];
        if chunked {
            loop {
                line.clear();
                reader.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim_end(), 16).context("a chunk has no size")?;
                let start = answer.len();
                answer.resize(start + size, 0);
                reader.read_exact(&mut answer[start..])?;
                line.clear();
                reader.read_line(&mut line)?;
                if size == 0 {
                    break;
                }
            }
        } else {
            reader.read_exact(&mut answer)?;
        }
        Ok(Answer { status, headers, body: answer })
    }

    /// GET of `path`; an error unless the answer is 200.
    pub fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        match self.request("GET", path, &[], &[])? {
            (200, body) => Ok(body),
            (status, body) => {
                bail!("{path}: {status} {}", String::from_utf8_lossy(&body[..body.len().min(300)]))
            }
        }
    }
}

/// Whether the other end of a connection had gone away.
fn is_gone(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionReset))
}

/// `text` with everything but letters, digits and `-_.` percent-encoded.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
