//! `completions`: prints completion scripts for shells. The scripts also complete the names of vessels, groups and
//! directories, which they get from the hidden command `names`.

use std::path::Path;

use clap::ValueEnum;
use clap_complete::Shell;

use super::{Exit, arguments, output, say};
use crate::settings::{SectionNames, Settings};

/// The kind of names to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Named {
    Vessels,
    Groups,
    Directories,
    /// Vessels and directories.
    Both,
}

/// Prints names from the settings, one a line, even if the settings have errors.
pub(super) fn names(file: &Path, named: Named) -> Exit {
    let SectionNames { vessels, groups, directories } = Settings::names_of(file);
    let names = match named {
        Named::Vessels => vessels,
        Named::Groups => groups,
        Named::Directories => directories,
        Named::Both => [vessels, directories].concat(),
    };
    names.iter().for_each(|name| say(format_args!("{name}")));
    Exit::Good
}

/// Prints the script for a shell.
pub(super) fn completions(shell: Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut arguments(), "contentmonster", &mut script);
    let script = String::from_utf8_lossy(&script);
    output::print(with_names(shell, &script).as_bytes());
    Exit::Good
}

fn with_names(shell: Shell, script: &str) -> String {
    match shell {
        Shell::Bash => format!("{script}{BASH}"),
        Shell::Fish => format!("{script}{FISH}"),
        Shell::Zsh => zsh(script),
        _ => script.to_owned(),
    }
}

/// Wraps the generated completion function. Where a name is expected, suggests names from the settings instead.
const BASH: &str = r#"
_contentmonster_with_names() {
    local cur prev kind='' i command='' settings=()
    cur="${COMP_WORDS[COMP_CWORD]}"
    prev="${COMP_WORDS[COMP_CWORD-1]}"
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${COMP_WORDS[i]}" in
            -s|--settings) settings=(--settings "${COMP_WORDS[i+1]}"); ((i++)) ;;
            -*) ;;
            *) command="${command:-${COMP_WORDS[i]}}" ;;
        esac
    done
    case "$prev" in
        --vessel) kind=vessels ;;
        --group) kind=groups ;;
        --directory) kind=directories ;;
        --all) [[ "$command" == forget ]] && kind=directories ;;
        "$command")
            case "$command" in
                pause|resume|trust) kind=vessels ;;
                queue) kind=both ;;
                resend) kind=directories ;;
            esac
            ;;
    esac
    _contentmonster "$@"
    if [[ -n "$kind" && "$cur" != -* ]]; then
        local IFS=$'\n'
        COMPREPLY=( $(compgen -W "$("$1" "${settings[@]}" names "$kind" 2>/dev/null | sed 's/[\\ $`"'\'']/\\\\&/g')" -- "$cur") )
    fi
}
complete -F _contentmonster_with_names -o bashdefault -o default contentmonster
"#;

const FISH: &str = r#"
function __contentmonster_names
    set -l words (commandline -opc)
    set -l settings
    for i in (seq (count $words))
        if contains -- $words[$i] -s --settings; and test $i -lt (count $words)
            set settings --settings $words[(math $i + 1)]
        end
    end
    contentmonster $settings names $argv[1] 2>/dev/null
end
complete -c contentmonster -n "__fish_seen_subcommand_from pause resume trust" -f -a "(__contentmonster_names vessels)"
complete -c contentmonster -n "__fish_seen_subcommand_from queue" -f -a "(__contentmonster_names both)"
complete -c contentmonster -n "__fish_seen_subcommand_from resend" -a "(__contentmonster_names directories)"
complete -c contentmonster -n "__fish_seen_subcommand_from status queue why retry resend receipts show" -l vessel -x -a "(__contentmonster_names vessels)"
complete -c contentmonster -n "__fish_seen_subcommand_from status pause resume retry trust" -l group -x -a "(__contentmonster_names groups)"
complete -c contentmonster -n "__fish_seen_subcommand_from queue" -l directory -x -a "(__contentmonster_names directories)"
complete -c contentmonster -n "__fish_seen_subcommand_from forget" -l all -x -a "(__contentmonster_names directories)"
"#;

/// The functions that the generated script calls instead of `_default` where a name is expected.
const ZSH: &str = r#"
_contentmonster_names() {
    local -a names settings
    local i
    for ((i = 1; i < $#words; i++)); do
        [[ $words[i] == (-s|--settings) ]] && settings=(--settings "${(Q)words[i+1]}")
    done
    names=(${(f)"$(contentmonster $settings names $1 2>/dev/null)"})
    compadd -a names
}
_contentmonster_vessels() { _contentmonster_names vessels }
_contentmonster_groups() { _contentmonster_names groups }
_contentmonster_directories() { _contentmonster_names directories }
_contentmonster_both() { _contentmonster_names both }
"#;

fn zsh(script: &str) -> String {
    let mut out = String::with_capacity(script.len() + 2000);
    for line in script.lines() {
        let names = [
            (":VESSEL:", "vessels"),
            (":GROUP:", "groups"),
            (":DIRECTORY:", "directories"),
            ("'::vessel -- ", "vessels"),
            ("'::what -- ", "both"),
            ("':what -- ", "directories"),
        ];
        match names.into_iter().find(|(mark, _)| line.contains(mark)) {
            Some((_, names)) => out.push_str(&line.replace(":_default'", &format!(":_contentmonster_{names}'"))),
            None => out.push_str(line),
        }
        out.push('\n');
        if line.starts_with("autoload") {
            out.push_str(ZSH);
        }
    }
    out
}
