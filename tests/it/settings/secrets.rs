//! Secrets: from the settings, from files and credentials; none is ever shown.

use super::*;

#[test]
fn secrets_come_from_files_and_credentials() {
    let (beside, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret_file = |directory: &Path, name: &str, text: &str, mode| {
        fs::write(directory.join(name), text).unwrap();
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    secret_file(beside.path(), "a.txt", "from file\r\nsecond line\n", 0o600);
    secret_file(beside.path(), "open.txt", "everybody's", 0o644);
    secret_file(credentials.path(), "shared", "from credential\n", 0o640);
    secret_file(credentials.path(), "d.password", "d's own credential\n", 0o640);
    secret_file(credentials.path(), "d.passphrase", "d's passphrase", 0o640);
    secret_file(credentials.path(), "a.ssh.password", "not taken: a has a key", 0o640);
    let text = "[Directory x]\nLocation = /x\n\
                [Vessel a]\nAddress = a\nPasswordFile = a.txt\n[Vessel b]\nAddress = b\nPasswordFile = open.txt\n\
                [Vessel c]\nAddress = c\nPasswordFile = shared\n[Vessel d]\nAddress = d\n[Vessel e]\nAddress = e\n";
    let environment = Environment { credentials: Some(credentials.path().to_owned()), ..environment() };
    let settings = Settings::parse(text, &beside.path().join("settings.ini"), &environment).unwrap();
    let passwords: Vec<_> =
        settings.vessels.iter().map(|v| v.ssh.password.as_ref().map(|p| p.expose_secret())).collect();
    let expected = [Some("from file"), Some("everybody's"), Some("from credential"), Some("d's own credential"), None];
    assert_eq!(passwords, expected);
    assert_eq!(settings.vessels[3].ssh.passphrase.as_ref().unwrap().expose_secret(), "d's passphrase");
    let [warning] = settings.warnings.as_slice() else { panic!("{:?}", settings.warnings) };
    assert!(
        warning.contains(":8: [Vessel b] PasswordFile: other users can read this secret (mode 0644); run: chmod 600 ")
    );
}

#[test]
fn a_secret_file_that_gives_no_secret_is_refused() {
    let beside = tempfile::tempdir().unwrap();
    fs::write(beside.path().join("empty"), "\nhunter2").unwrap();
    fs::write(beside.path().join("latin1"), b"hunter2\xe9").unwrap();
    for (name, reason) in
        [("empty", "is empty"), ("latin1", "not UTF-8"), ("missing", "No such file"), (".", "directory")]
    {
        let text = with(&format!("PasswordFile = {name}"));
        let error = Settings::parse(&text, &beside.path().join("settings.ini"), &environment()).unwrap_err();
        let shown = error.to_string();
        assert_eq!(error.problems.len(), 1, "{shown}");
        assert!(shown.contains(reason) && !shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn load_warns_of_a_secret_that_others_can_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("settings.ini");
    fs::write(&file, with("Username = bob\nPassword = hunter2\n")).unwrap();
    for (mode, warnings) in [(0o600, 0), (0o640, 1), (0o604, 1)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let settings = Settings::load(&file).unwrap();
        assert_eq!(settings.warnings.len(), warnings, "{mode:o}: {:?}", settings.warnings);
        assert_eq!(settings.file, file);
    }
}

/// A secret that no word of ours contains.
fn secret() -> impl Strategy<Value = String> {
    "[!-~]{0,8}Qq7[ -~]{0,8}Zz9[!-~]{0,8}"
}

proptest! {
    #[test]
    fn a_secret_is_never_shown(secret in secret(), shape in prop::sample::select(vec![
        "Password = {}", "Passphrase = {}", "Password={}", "Password = \"{}", "Password = {}\nPassword = {}", "Password {}",
        "Password:{}", "Password = {}\nPasswordFile = x", "Password = \u{1}{}", "Port = 0\nPassword = {}",
    ])) {
        let result = parse(&with(&shape.replace("{}", &secret)));
        let shown = match &result {
            Ok(settings) => format!("{settings:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains("Qq7") && !shown.contains("Zz9"), "{shown}");
    }

    #[test]
    fn a_secret_in_quotes_arrives_as_it_is(secret in "[^\\p{Cc}]{1,40}") {
        let settings = parse(&with(&format!("Password = \"{}\"", secret.replace('"', "\"\"")))).unwrap();
        prop_assert_eq!(settings.vessels[0].ssh.password.as_ref().unwrap().expose_secret(), secret);
    }
}
