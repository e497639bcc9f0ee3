//! Releases of Helm: the templates use only functions that the oldest supported release has, and render the same objects
//! with the oldest and the newest ones.

use std::{collections::BTreeSet, fs, path::Path};

use kuik_testkit::real::{InstallSource, run};

use super::{chart, every_value, objects, template, values_1_14};

/// Functions of templates in Helm 3.2: those of Go, of Helm, and of sprig 3.1.
const FUNCTIONS: &str = "\
and call eq ge gt html index js le len lt ne not or print printf println slice urlquery \
fail fromJson fromJsonArray fromYaml fromYamlArray include lookup required toJson toToml toYaml tpl \
abbrev abbrevboth add add1 adler32sum ago append atoi b32dec b32enc b64dec b64enc base biggest buildCustomCert camelcase \
cat ceil clean coalesce compact concat contains date dateInZone dateModify deepCopy deepEqual default dict dir div duration \
durationRound empty ext first float64 floor get has hasKey hasPrefix hasSuffix htmlDate indent initial initials int int64 \
isAbs join kebabcase keys kindIs kindOf last list lower max merge mergeOverwrite min mod mul mustAppend mustCompact \
mustDeepCopy mustFirst mustHas mustInitial mustLast mustMerge mustMergeOverwrite mustPrepend mustRegexFind \
mustRegexFindAll mustRegexMatch mustRegexReplaceAll mustRegexSplit mustRest mustReverse mustSlice mustToJson mustUniq \
mustWithout nindent nospace now omit pick pluck plural prepend quote regexFind regexFindAll regexMatch regexReplaceAll \
regexReplaceAllLiteral regexSplit repeat replace rest reverse round semver semverCompare seq set sha1sum sha256sum \
snakecase sortAlpha split splitList splitn squote sub substr swapcase ternary title toDate toDecimal toPrettyJson \
toRawJson toString toStrings trim trimAll trimPrefix trimSuffix trunc tuple typeIs typeIsLike typeOf uniq unixEpoch unset \
until untilStep untitle upper urlJoin urlParse values without wrap wrapWith";

/// Words of the language of templates.
const KEYWORDS: [&str; 9] = ["if", "else", "end", "range", "with", "define", "template", "block", "nil"];

/// The actions of a template, without texts and comments.
fn actions(template: &str) -> Vec<String> {
    let actions = template.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap());
    let code = actions.filter(|action| !action.trim_start_matches(['-', ' ']).starts_with("/*"));
    code.map(|action| action.replace("\\\"", "").split('"').step_by(2).collect::<Vec<_>>().join(" "))
        .collect()
}

/// The words of an action that name a function: no fields, variables and numbers.
fn functions(action: &str) -> BTreeSet<String> {
    let words = action.split(|c: char| c.is_whitespace() || "()|=,:-".contains(c));
    let named = words.filter(|word| word.chars().next().is_some_and(|first| first.is_ascii_alphabetic()));
    let named = named.filter(|word| !KEYWORDS.contains(word) && !matches!(*word, "true" | "false"));
    // A field of a result in parentheses begins with a dot, and is no word of its own.
    named.map(|word| word.split('.').next().unwrap().to_owned()).collect()
}

/// The files of a folder.
fn files(folder: &Path) -> Vec<(String, String)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn templates_use_only_functions_of_the_oldest_helm() {
    let known: BTreeSet<_> = FUNCTIONS.split_whitespace().map(str::to_owned).collect();
    let mut used = BTreeSet::new();
    for (path, template) in files(&Path::new(&chart()).join("templates")) {
        for action in actions(&template) {
            for name in functions(&action) {
                assert!(known.contains(&name), "{path}: Helm 3.2 has no {name}: {{{{{action}}}}}");
                used.insert(name);
            }
        }
    }
    // The parser finds what is there.
    for name in ["include", "ternary", "mergeOverwrite", "sha256sum", "nindent"] {
        assert!(used.contains(name), "{name} is not found in {used:?}");
    }
    assert_eq!(
        functions("with mustRegexReplaceAllLiteral .x | chunk 3"),
        BTreeSet::from(["mustRegexReplaceAllLiteral".to_owned(), "chunk".to_owned()])
    );
}

/// Helm 3.2 cannot render for another release of Kubernetes than 1.16: in a cluster it asks that cluster.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn the_oldest_and_the_newest_helm_render_the_same() {
    let copy = tempfile::tempdir().unwrap();
    for folder in ["", "templates", "files"] {
        let [from, to] = [Path::new(&chart()), copy.path()].map(|root| root.join(folder));
        fs::create_dir_all(&to).unwrap();
        for entry in
            fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
        {
            let text = fs::read_to_string(&entry).unwrap();
            let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("kubeVersion:")).collect();
            fs::write(to.join(entry.file_name().unwrap()), lines.join("\n") + "\n").unwrap();
        }
    }
    let copied = copy.path().to_str().unwrap();
    let every = vec![format!("--values={}", every_value())];
    let all = values_1_14::files(false).into_iter().chain(values_1_14::files(true));
    for (name, values) in all.chain([("every value".to_owned(), every)]) {
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        let mut rendered = Vec::new();
        for helm in ["helm-3.2", "helm-3", "helm-4"] {
            // Newer releases render for what 3.2 renders for, but for its age.
            let release: &[&str] = if helm == "helm-3.2" { &[] } else { &["--kube-version=v1.20.0"] };
            let arguments = ["template", "kube-image-keeper", copied, "--namespace", "kuik-system"];
            let output =
                run(helm, InstallSource::BuiltFromGo, [&arguments[..], release, &values].concat()).await;
            rendered.push(output.unwrap_or_else(|error| panic!("{name}: {helm}: {error}")));
        }
        let lines = |text: &String| -> BTreeSet<String> {
            text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
        };
        let [oldest, third, fourth] = [0, 1, 2].map(|n| lines(&rendered[n]));
        assert_eq!(objects(&rendered[0]), objects(&rendered[2]), "{name}");
        assert_eq!(oldest.symmetric_difference(&third).collect::<Vec<_>>(), Vec::<&String>::new(), "{name}");
        assert_eq!(third, fourth, "{name}");
    }
    // And unchanged for a release that the chart supports.
    template("helm-4", &["--kube-version=v1.20.0"]).await.unwrap();
}
