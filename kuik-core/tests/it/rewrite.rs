//! Rules of the standard policy: each on its own, and their order.

use kuik_core::{
    reference::{CannotEncode, ProxyAuthority},
    rewrite::{
        ContainerContext, ImagePatterns, ImageRewrite, KeepReason, PatternList, PullPolicy, Rewriter,
        StandardPolicy,
    },
};

fn policy(ignore: &[&str], accept: &[&str]) -> StandardPolicy {
    StandardPolicy::new().with_patterns(ImagePatterns::new(ignore, accept).unwrap())
}

fn rewrite(policy: &StandardPolicy, image: &str, pull_policy: Option<PullPolicy>) -> ImageRewrite {
    let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), policy.clone());
    rewriter.rewrite(image, &ContainerContext::new("app").with_pull_policy(pull_policy))
}

/// Returns the resulting image, or the label of the reason for which it is kept.
fn decide(policy: &StandardPolicy, image: &str, pull_policy: Option<PullPolicy>) -> String {
    match rewrite(policy, image, pull_policy) {
        ImageRewrite::Rewritten { image } => image,
        ImageRewrite::AlreadyRewritten => image.to_owned(),
        ImageRewrite::Kept(reason) => {
            assert!(!reason.to_string().is_empty());
            reason.as_label().to_owned()
        }
    }
}

#[test]
fn rewrite_prefixes_image_with_proxy() {
    let policy = policy(&[], &[]);
    let digest = format!("sha256:{}", "a".repeat(64));
    for image in [
        "nginx:1",
        "docker.io/library/nginx:1",
        "quay.io/org/app:1",
        &format!("app@{digest}"),
        &format!("quay.io/app:1@{digest}"),
    ] {
        assert_eq!(decide(&policy, image, None), format!("localhost:7439/{image}"));
    }
    assert_eq!(decide(&policy, "r:5000/app:1", None), "localhost:7439/r__5000/app:1");
}

#[test]
fn images_of_loopback_registries_are_kept_unless_exempt() {
    let strict = policy(&["ignored"], &[]);
    for image in ["localhost:32000/app:1", "127.0.0.1:5000/app:1", "[::1]:5000/app:1", "localhost/app:1"] {
        assert_eq!(decide(&strict, image, None), "loopback_registry", "{image}");
    }
    assert_eq!(decide(&strict, "localhost:5000/ignored:1", None), "ignored", "patterns come first");
    let lax = strict.with_loopback_registries(["localhost:5000", "[::1]"]);
    assert_eq!(decide(&lax, "localhost:5000/app:1", None), "localhost:7439/localhost__5000/app:1");
    assert_eq!(decide(&lax, "localhost:5001/app:1", None), "loopback_registry");
    assert_eq!(decide(&lax, "[::1]:5000/app:1", None), "cannot_encode", "exempt, but not a path");
}

#[test]
fn rewrite_of_rewritten_image_gives_same_decision() {
    let policy = policy(&["^r:5000/ignored"], &["^nginx", "^r:5000/"]);
    for image in ["nginx:1", "r:5000/app:1", "localhost:7439/r__5000/app:1"] {
        let image = decide(&policy, image, None);
        assert_eq!(rewrite(&policy, &image, None), ImageRewrite::AlreadyRewritten, "{image}");
    }
    assert_eq!(decide(&policy, "localhost:7439/r__5000/ignored:1", None), "ignored");
    assert_eq!(decide(&policy, "localhost:7439/quay.io/app:1", None), "not_accepted");
    assert_eq!(decide(&policy, "localhost:7439/nginx", None), "pull_policy_always_by_default");
}

#[test]
fn pull_policy_always_and_never_are_kept() {
    use PullPolicy::{Always, IfNotPresent, Never};
    let digest = format!("app@sha256:{}", "a".repeat(64));
    let tagged = format!("app:latest@sha256:{}", "a".repeat(64));
    let on = policy(&[], &[]);
    let off = on.clone().with_always_kept(false);
    let by_default = Some("pull_policy_always_by_default");
    for (image, pull_policy, kept_on, kept_off) in [
        ("app:1", Some(Never), Some("pull_policy_never"), Some("pull_policy_never")),
        ("app:1", Some(Always), Some("pull_policy_always"), None),
        (&digest, Some(Always), Some("pull_policy_always"), None),
        ("app:1", Some(IfNotPresent), None, None),
        ("app", Some(IfNotPresent), None, None),
        ("app:latest", Some(IfNotPresent), None, None),
        ("app:1", None, None, None),
        ("app", None, by_default, None),
        ("app:latest", None, by_default, None),
        ("app:Latest", None, None, None),
        (&digest, None, None, None),
        (&tagged, None, by_default, None),
    ] {
        let rewritten = format!("localhost:7439/{image}");
        for (policy, kept) in [(&on, kept_on), (&off, kept_off)] {
            assert_eq!(
                decide(policy, image, pull_policy),
                kept.unwrap_or(&rewritten),
                "{image} {pull_policy:?}"
            );
        }
    }
}

#[test]
fn patterns_match_image_as_written() {
    let policy = policy(&["internal", "^docker\\.io/library/", ":dev$"], &["^quay\\.io/", "nginx"]);
    for (image, label) in [
        ("quay.io/internal/app:1", "ignored"),
        ("docker.io/library/nginx:1", "ignored"),
        ("nginx:dev", "ignored"),
        ("library/nginx:1", ""),
        ("quay.io/app:1", ""),
        ("ghcr.io/app:1", "not_accepted"),
    ] {
        let rewritten = format!("localhost:7439/{image}");
        assert_eq!(
            decide(&policy, image, None),
            if label.is_empty() { &rewritten } else { label },
            "{image}"
        );
    }
    let result = rewrite(&policy, "a/internal:dev", None);
    assert_eq!(result, ImageRewrite::Kept(KeepReason::Ignored { pattern: "internal".into() }));
}

#[test]
fn first_rule_that_applies_decides() {
    let strict = policy(&["Ignored"], &["^acc", "^Ignored", "^localhost:7439/x"]);
    let always = Some(PullPolicy::Always);
    for (image, pull_policy, label) in [
        ("Ignored", Some(PullPolicy::Never), "pull_policy_never"),
        ("Ignored", always, "pull_policy_always"),
        ("Ignored", None, "ignored"),
        ("Other", None, "not_accepted"),
        ("accepted:", None, "invalid_reference"),
        ("", None, "not_accepted"),
        ("accepted[::1]", None, "invalid_reference"),
    ] {
        assert_eq!(decide(&strict, image, pull_policy), label, "{image} {pull_policy:?}");
    }
    let lax = policy(&[], &[]);
    for (image, label) in [
        ("", "invalid_reference"),
        ("Nginx:1", "invalid_reference"),
        ("[2001:db8::1]/app:1", "cannot_encode"),
        ("Registry/app:1", "cannot_encode"),
        ("localhost:7439/localhost__7439/app:1", "loopback_registry"),
    ] {
        assert_eq!(decide(&lax, image, None), label, "{image}");
    }
    let result = rewrite(&lax, "[2001:db8::1]/app:1", None);
    assert_eq!(result, ImageRewrite::Kept(KeepReason::CannotEncode(CannotEncode::Ipv6Host)));
}

#[test]
fn all_invalid_patterns_are_reported() {
    let large = "(\\pL{1000}){1000}";
    let error = ImagePatterns::new(&["fine", "a(b", "a\\"], &["[z-a]", "^ok$", large]).unwrap_err();
    let found: Vec<_> =
        error.patterns().iter().map(|pattern| (pattern.list, pattern.text.as_str(), pattern.at)).collect();
    assert_eq!(
        found,
        [
            (PatternList::Ignore, "a(b", 1),
            (PatternList::Ignore, "a\\", 1),
            (PatternList::Accept, "[z-a]", 1),
            (PatternList::Accept, large, 0),
        ]
    );
    assert!(error.to_string().starts_with(
        "invalid ignore pattern \"a(b\" at byte 1: unclosed group; invalid ignore pattern \"a\\\\\" at byte 1: "
    ));
}
