//! Secrets, which no log may contain.

use std::path::Path;

/// Shorter secrets would match by chance.
const BYTES_MIN: usize = 8;

/// None of them is in the log.
pub fn assert_absent(log: &str, secrets: &[String]) {
    for secret in secrets {
        assert!(
            secret.len() >= BYTES_MIN,
            "too short to be searched for: {secret}"
        );
        let line = log.lines().find(|line| line.contains(secret.as_str()));
        assert_eq!(line, None, "the log holds {secret}");
    }
}

/// The key in the file, as a whole and its secret half, in each form that a log could show it in.
pub fn key_forms(file: &Path) -> Vec<String> {
    let keypair: Vec<u8> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    vec![
        bs58::encode(&keypair).into_string(),
        bs58::encode(&keypair[..32]).into_string(),
        list_of(&keypair[..8], ", "),
        list_of(&keypair[..8], ","),
    ]
}

/// The beginning of a list of bytes, whatever follows.
fn list_of(bytes: &[u8], separator: &str) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}", numbers.join(separator))
}

/// The token, its signature alone, and how each token of its issuer begins.
pub fn token_forms(token: &str) -> Vec<String> {
    let header = token.split('.').next().unwrap_or_default();
    let signature = token.rsplit('.').next().unwrap_or_default();
    [token, signature, header].map(str::to_owned).to_vec()
}

pub fn password_of(database_url: &str) -> String {
    let database: url::Url = database_url.parse().unwrap();
    database.password().expect("a password").to_owned()
}
