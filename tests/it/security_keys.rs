//! Keys in hardware (`sk-`), by way of the agent. The device is made of software here, which a server can't tell: it
//! signs what FIDO2 authenticators sign. Besides, this agent holds a key of a kind that nobody knows.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::Signature;
use russh::keys::{Algorithm, PrivateKey, PublicKey, signature::Signer};
use sha2::{Digest, Sha256};

use crate::fleet::Fleet;

const KIND: &str = "sk-ssh-ed25519@openssh.com";
const APPLICATION: &str = "ssh:";

/// The device: an Ed25519 key and how often it has signed.
struct Device {
    key: PrivateKey,
    counter: u32,
}

/// A string as SSH writes it.
fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    bytes.as_ref().encode_vec().unwrap()
}

impl Device {
    fn blob(&self) -> Vec<u8> {
        let point = self.key.public_key().key_data().ed25519().unwrap().0;
        [string(KIND), string(point), string(APPLICATION)].concat()
    }

    fn public(&self) -> PublicKey {
        PublicKey::from_bytes(&self.blob()).unwrap()
    }

    /// `PROTOCOL.u2f`: the signature is over the application's hash, "somebody is there", the counter, the message's hash.
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        const PRESENT: u8 = 1;
        self.counter += 1;
        let counter = self.counter.to_be_bytes();
        let signed = [&Sha256::digest(APPLICATION)[..], &[PRESENT], &counter, &Sha256::digest(message)].concat();
        let signature: Signature = self.key.try_sign(&signed).unwrap();
        [string(KIND), string(signature.as_bytes()), vec![PRESENT], counter.to_vec()].concat()
    }

    /// Answers one client of the agent until it has gone.
    fn serve(&mut self, mut client: UnixStream) -> io::Result<()> {
        const REQUEST_IDENTITIES: u8 = 11;
        const SIGN_REQUEST: u8 = 13;
        loop {
            let mut length = [0; 4];
            client.read_exact(&mut length)?;
            let mut request = vec![0; u32::from_be_bytes(length) as usize];
            client.read_exact(&mut request)?;
            let answer = match request[0] {
                REQUEST_IDENTITIES => {
                    let strange = [string(string("ssh-tomorrow@example.org")), string(b"\xff")].concat();
                    [vec![12, 0, 0, 0, 2], strange, string(self.blob()), string("device")].concat()
                }
                SIGN_REQUEST => {
                    let mut rest = &request[1..];
                    let key = take_string(&mut rest);
                    assert_eq!(key, self.blob());
                    let message = take_string(&mut rest).to_vec();
                    [vec![14], string(self.sign(&message))].concat()
                }
                _ => vec![5],
            };
            client.write_all(&string(answer))?;
        }
    }
}

fn take_string<'a>(from: &mut &'a [u8]) -> &'a [u8] {
    let (length, rest) = from.split_at(4);
    let (taken, rest) = rest.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize);
    *from = rest;
    taken
}

/// Listens until the test run ends: what nobody connects to does no harm.
fn listen(socket: &Path, mut device: Device) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            // It ends when the client goes.
            let _ = device.serve(client);
        }
    });
}

#[test]
fn a_key_in_hardware_opens_a_vessel_through_the_agent_beside_a_key_that_nobody_knows() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let made = fleet.path("seed");
    let keygen =
        std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&made).status();
    assert!(keygen.unwrap().success());
    let device = Device { key: PrivateKey::read_openssh_file(&made).unwrap(), counter: 0 };
    assert_eq!(device.public().algorithm(), Algorithm::SkEd25519);
    fleet.vessel("open").authorize(&format!("{}\n", device.public().to_openssh().unwrap()));
    fs::remove_file(fleet.path("home/.ssh/id_ed25519")).unwrap();
    let socket = fleet.path("agent");
    listen(&socket, device);
    fleet.put("cargo", b"cargo");
    let done = fleet.call_with(&[("SSH_AUTH_SOCK", &socket)], &["--once"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    fleet.assert_equal("open", "cargo", b"cargo");
}
