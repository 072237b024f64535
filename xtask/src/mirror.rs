//! The package mirror that apt on this machine is configured with. Interpreters that the machine does not
//! have come from there; no mirror is written down anywhere.

use std::fs;

use anyhow::{Context, Result};

/// The mirror of the distribution's own archive.
pub fn configured() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("");
    let mut lists = String::new();
    let mut stanzas = String::new();
    read_into(&mut lists, "/etc/apt/sources.list");
    for entry in fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten() {
        let path = entry.path().display().to_string();
        if path.ends_with(".list") {
            read_into(&mut lists, &path);
        } else if path.ends_with(".sources") {
            read_into(&mut stanzas, &path);
            stanzas.push('\n');
        }
    }
    of_lists(&lists, codename)
        .or_else(|| of_stanzas(&stanzas, codename))
        .context("apt's sources name no archive of this distribution")
}

fn read_into(text: &mut String, path: &str) {
    text.push_str(&fs::read_to_string(path).unwrap_or_default());
    text.push('\n');
}

/// Whether a suite is the distribution itself, not its updates, nor somebody else's packages.
fn is_archive(suite: &str, codename: &str) -> bool {
    suite == codename || matches!(suite, "stable" | "testing" | "unstable" | "sid")
}

/// The mirror in lines such as `deb [options] URI SUITE COMPONENT...`.
fn of_lists(text: &str, codename: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        (is_archive(suite, codename) && words.any(|component| component == "main")).then(|| uri.to_owned())
    })
}

/// The mirror in stanzas of `Types:`, `URIs:`, `Suites:`.
fn of_stanzas(text: &str, codename: &str) -> Option<String> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
        let suites = field("Suites:")?;
        let disabled = field("Enabled:").is_some_and(|value| value.trim() == "no");
        let wanted = suites.split_whitespace().any(|suite| is_archive(suite, codename))
            && field("Components:")?.split_whitespace().any(|component| component == "main");
        (wanted && !disabled).then(|| field("URIs:")?.split_whitespace().next().map(str::to_owned))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_told_from_other_sources() {
        let lists = "# deb http://commented.example/debian trixie main\n\
                     deb http://tools.example/apt tools-trixie main\n\
                     deb http://mirror.example/security trixie-security main\n\
                     deb [signed-by=/k arch=amd64] http://mirror.example/debian trixie main contrib\n";
        assert_eq!(of_lists(lists, "trixie").as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(of_lists(lists, "bookworm"), None);
    }

    #[test]
    fn stanzas() {
        let text = "Types: deb\nURIs: http://tools.example/x\nSuites: nodistro\nComponents: main\n\n\
                    Types: deb\n# a comment\nURIs: http://mirror.example/debian\n\
                    Suites: trixie trixie-updates\nComponents: main\n";
        assert_eq!(of_stanzas(text, "trixie").as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(of_stanzas(text, "forky"), None);
    }
}
