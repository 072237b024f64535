//! Kernels from Debian's archive, of other releases than the machine's own: apt is run with lists of its own, and nothing
//! is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{mirror, run};

/// The releases that are looked through; what the mirror has not (any more) is left out.
const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", "trixie-backports"];

/// How a kernel's package is named, before and after its release. Those for virtual machines of clouds have all that is
/// needed built in and are a third of the size.
const FLAVOUR: &str = "-cloud-amd64";
/// Newer ones have the kernel itself in a package of its own.
const PREFIXES: [&str; 2] = ["linux-binary-", "linux-image-"];

/// A kernel that can be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its release, as `6.1.0-50`.
    pub release: String,
    /// The file to boot.
    pub image: PathBuf,
}

/// The archive.
pub struct Packages {
    folder: PathBuf,
    settings: PathBuf,
}

impl Packages {
    /// Reads what there is, with everything of apt's below `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        let state = folder.join("apt");
        for inner in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(state.join(inner))?;
        }
        let state = state.canonicalize()?;
        let mirror = mirror::configured()?;
        let sources: String = SUITES.iter().map(|suite| format!("deb {mirror} {suite} main\n")).collect();
        fs::write(state.join("sources.list"), sources)?;
        let shown = state.display();
        let settings = format!(
            "Dir::State::Lists \"{shown}/lists\";\nDir::Cache \"{shown}/cache\";\n\
             Dir::Etc::SourceList \"{shown}/sources.list\";\nDir::Etc::SourceParts \"-\";\n\
             Acquire::Check-Valid-Until \"false\";\nAPT::Sandbox::User \"root\";\n"
        );
        let packages = Packages { folder: folder.canonicalize()?, settings: state.join("apt.conf") };
        fs::write(&packages.settings, settings)?;
        if !run::succeeds(packages.apt("apt-get").args(["update", "--quiet"])) {
            eprintln!("xtask: not all of {} can be had from this mirror", SUITES.join(", "));
        }
        Ok(packages)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.settings);
        command
    }

    /// The newest kernel of a series (`6.1`), fetched unless it is there.
    pub fn kernel(&self, series: &str) -> Result<Kernel> {
        let names = run::output(self.apt("apt-cache").args(["pkgnames", "linux-"]))?;
        let package = newest(names.lines(), series)
            .with_context(|| format!("the mirror has no kernel {series} of {}", SUITES.join(", ")))?;
        let release = release_of(&package).unwrap_or(&package).to_owned();
        let place = self.folder.join(&release);
        let image = place.join("vmlinuz");
        if !image.exists() {
            fs::create_dir_all(&place)?;
            eprintln!("xtask: {package}");
            run::output(self.apt("apt-get").current_dir(&place).args(["download", "--quiet", &package]))?;
            extract(&place, &image)?;
        }
        Ok(Kernel { release, image })
    }
}

/// Takes the kernel out of the package that lies in a folder.
fn extract(place: &Path, image: &Path) -> Result<()> {
    let package = fs::read_dir(place)?.flatten().map(|entry| entry.path());
    let package = package
        .into_iter()
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .context("no package")?;
    let mut content =
        Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&package).stdout(Stdio::piped()).spawn()?;
    let tar = content.stdout.take().context("no output")?;
    let mut found = Command::new("tar");
    found.args(["--extract", "--to-stdout", "--wildcards", "*/vmlinuz*"]).stdin(tar);
    let written = found.stdout(fs::File::create(image.with_extension("part"))?).status()?;
    content.wait()?;
    ensure!(written.success(), "{} has no kernel in it", package.display());
    fs::rename(image.with_extension("part"), image)?;
    Ok(fs::remove_file(package)?)
}

/// The release in the name of a kernel's package.
fn release_of(package: &str) -> Option<&str> {
    let named = PREFIXES.iter().find_map(|prefix| package.strip_prefix(prefix))?;
    let release = named.strip_suffix(FLAVOUR)?;
    release.starts_with(|first: char| first.is_ascii_digit()).then_some(release)
}

/// The package of the newest release of a series, the one with the kernel itself if there are two.
fn newest<'a>(names: impl Iterator<Item = &'a str>, series: &str) -> Option<String> {
    let belongs = |release: &str| {
        release.strip_prefix(series).is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    let candidates = names.filter_map(|name| Some((release_of(name)?, name)));
    let candidates = candidates.filter(|(release, _)| belongs(release));
    let is_whole = |name: &str| name.starts_with(PREFIXES[0]);
    candidates
        .max_by_key(|(release, name)| (numbers(release), is_whole(name)))
        .map(|(_, name)| name.to_owned())
}

/// All numbers in a text, which orders releases.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|part: char| !part.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_found_by_its_numbers() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1.0-55-cloud-amd64-unsigned",
            "linux-image-6.1.0-55-amd64",
            "linux-image-6.1.0-55-cloud-amd64-dbg",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-image-cloud-amd64",
            "linux-base-7.3.4+deb13-cloud-amd64",
        ];
        let newest = |series| newest(names.iter().copied(), series);
        assert_eq!(newest("6.1").as_deref(), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(newest("6.12").as_deref(), Some("linux-image-6.12.107+deb13-cloud-amd64"));
        assert_eq!(newest("7").as_deref(), Some("linux-binary-7.3.4+deb13-cloud-amd64"));
        assert_eq!(newest("5.10"), None);
        assert_eq!(release_of("linux-binary-7.3.4+deb13-cloud-amd64"), Some("7.3.4+deb13"));
    }
}
