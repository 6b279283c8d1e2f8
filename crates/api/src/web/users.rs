//! Users and their passwords (bcrypt).
//!
//! A hash takes tens of milliseconds to check by design: it runs on threads of its own, few at a time, with a short
//! queue, and outcomes are remembered. A user that does not exist costs as much as one that does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Checks that run or wait at a time; more are refused.
const MAX_WAITING: usize = 64;

/// Outcomes remembered, of each kind.
const MAX_REMEMBERED: usize = 1_000;

/// Longer passwords are checked but not remembered. bcrypt itself reads 72 bytes.
const MAX_REMEMBERED_BYTES: usize = 256;

/// The dearest hash that is accepted: each step doubles the time of a check (14 takes about a second).
const MAX_COST: u32 = 14;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No or a wrong user and password.
    Unauthorized,
    /// Too many checks wait.
    Busy,
}

/// The users.
pub(super) struct Users {
    hashes: BTreeMap<String, Arc<str>>,
    /// What a user that does not exist is checked against.
    decoy: Arc<str>,
    checks: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Right and wrong passwords by user; apart, so that wrong ones push no right one out. Whole users and passwords
    /// are compared, not digests of them joined together.
    right: Mutex<HashMap<(String, Vec<u8>), ()>>,
    wrong: Mutex<HashMap<(String, Vec<u8>), ()>>,
}

/// What is wrong with a bcrypt hash.
pub fn check_hash(hash: &str) -> Result<(), String> {
    cost_of(hash).map(|_| ())
}

fn cost_of(hash: &str) -> Result<u32, String> {
    let bad = || "not a bcrypt hash".to_owned();
    let bytes = hash.as_bytes();
    let known = ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix));
    if !known || bytes.len() != 60 || !hash.is_ascii() || bytes[6] != b'$' {
        return Err(bad());
    }
    let cost: u32 = hash[4..6].parse().map_err(|_| bad())?;
    if !hash[7..].bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/') {
        return Err(bad());
    }
    if !(4..=MAX_COST).contains(&cost) {
        return Err(format!("a bcrypt hash with cost {cost}; 4 to {MAX_COST} are accepted"));
    }
    Ok(cost)
}

impl Users {
    /// The users with their hashes; fails on a hash that is none, naming its user.
    pub(super) fn new(users: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut dearest = 4;
        for (user, hash) in users {
            dearest = dearest.max(cost_of(hash).map_err(|why| format!("user {user:?}: {why}"))?);
        }
        // The hash of a text that nobody knows; what matters is that it costs as much.
        let decoy = format!("$2y${dearest:02}$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi");
        let parallel = std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
        Ok(Self {
            hashes: users.iter().map(|(user, hash)| (user.clone(), hash.as_str().into())).collect(),
            decoy: decoy.into(),
            checks: Arc::new(Semaphore::new(parallel)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            right: Mutex::default(),
            wrong: Mutex::default(),
        })
    }

    /// Whether the value of an `Authorization` header names a user with the right password.
    pub(super) async fn check(&self, header: Option<&[u8]>) -> Result<(), Refusal> {
        let Some((user, password)) = header.and_then(credentials) else { return Err(Refusal::Unauthorized) };
        let key = (user, password);
        if self.right.lock().contains_key(&key) {
            return Ok(());
        }
        if self.wrong.lock().contains_key(&key) {
            return Err(Refusal::Unauthorized);
        }
        let known = self.hashes.get(&key.0).map(Arc::clone);
        let is_known = known.is_some();
        let hash = known.unwrap_or_else(|| Arc::clone(&self.decoy));
        let waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let place = Arc::clone(&self.checks).acquire_owned().await.map_err(|_| Refusal::Busy)?;
        let password = key.1.clone();
        // The place goes with the work: a client that leaves frees none before the hash is done.
        let checked = tokio::task::spawn_blocking(move || {
            let _held = (waiting, place);
            bcrypt::verify(password, &hash).unwrap_or(false)
        })
        .await;
        let right = is_known && checked.unwrap_or(false);
        if key.1.len() <= MAX_REMEMBERED_BYTES && key.0.len() <= MAX_REMEMBERED_BYTES {
            let mut remembered = if right { self.right.lock() } else { self.wrong.lock() };
            if remembered.len() >= MAX_REMEMBERED {
                remembered.clear();
            }
            remembered.insert(key, ());
        }
        if right { Ok(()) } else { Err(Refusal::Unauthorized) }
    }
}

/// User and password of a `Basic` authorization.
fn credentials(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, coded) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = STANDARD.decode(coded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash of `secret` with the lowest cost.
    fn users() -> Users {
        let hash = bcrypt::hash("secret", 4).unwrap();
        Users::new(&[("alice".to_owned(), hash)].into()).unwrap()
    }

    fn basic(pair: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(pair)).into_bytes()
    }

    #[tokio::test]
    async fn only_the_right_user_with_the_right_password() {
        let users = users();
        for _ in 0..2 {
            assert_eq!(users.check(Some(&basic("alice:secret"))).await, Ok(()));
            for wrong in
                ["alice:Secret", "alice:", "bob:secret", ":secret", "alice", "alicesecret:", "alices:ecret"]
            {
                assert_eq!(users.check(Some(&basic(wrong))).await, Err(Refusal::Unauthorized), "{wrong}");
            }
            for header in [&b"Basic"[..], b"Basic !!", b"Bearer YWxpY2U6c2VjcmV0", b"", &[0xff; 9]] {
                assert_eq!(users.check(Some(header)).await, Err(Refusal::Unauthorized));
            }
            assert_eq!(users.check(None).await, Err(Refusal::Unauthorized));
        }
        assert_eq!(users.right.lock().len(), 1);
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded_and_wrong_passwords_push_no_right_one_out() {
        let users = users();
        users.check(Some(&basic("alice:secret"))).await.unwrap();
        for n in 0..MAX_REMEMBERED {
            users.wrong.lock().insert((n.to_string(), Vec::new()), ());
        }
        let long = format!("alice:{}", "x".repeat(100_000));
        assert_eq!(users.check(Some(&basic(&long))).await, Err(Refusal::Unauthorized));
        assert_eq!(users.wrong.lock().len(), MAX_REMEMBERED);
        users.check(Some(&basic("alice:no"))).await.unwrap_err();
        assert_eq!(users.wrong.lock().len(), 1);
        assert_eq!(users.right.lock().len(), 1);
    }

    #[tokio::test]
    async fn more_checks_than_may_wait_are_refused() {
        let users = users();
        let held = Arc::clone(&users.waiting).acquire_many_owned(MAX_WAITING as u32).await.unwrap();
        assert_eq!(users.check(Some(&basic("alice:secret"))).await, Err(Refusal::Busy));
        drop(held);
        assert_eq!(users.check(Some(&basic("alice:secret"))).await, Ok(()));
    }

    #[test]
    fn hashes_are_checked_before_they_are_used() {
        let good = bcrypt::hash("x", 4).unwrap();
        assert!(check_hash(&good).is_ok());
        for bad in ["", "secret", "$2y$10$short", &format!("{}é", &good[..58]), &good.replace("$04$", "$xx$")]
        {
            assert_eq!(check_hash(bad).unwrap_err(), "not a bcrypt hash", "{bad}");
        }
        assert!(check_hash(&good.replace("$04$", "$31$")).unwrap_err().contains("cost 31"));
        let named = Users::new(&[("bob".to_owned(), "x".to_owned())].into()).err().unwrap();
        assert_eq!(named, "user \"bob\": not a bcrypt hash");
    }
}
