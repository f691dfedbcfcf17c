use super::*;
use twin_infer::sample;

/// Models that differ in their state.
fn bundles(count: u8) -> Vec<Bundle> {
    (0..count).map(|k| sample::bundle(twin_shared::model::Architecture::Resnet8x4, &["cat", "dog"], k)).collect()
}

fn install(models: &Models, folder: &Path, bundle: &Bundle) -> ModelVersion {
    let file = folder.join("bundle");
    fs::write(&file, bundle.to_bytes().expect("a bundle")).expect("written");
    models.install(bundle.about.version(), &file).expect("installed");
    bundle.about.version()
}

#[test]
fn three_are_kept_and_the_active_one_always() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = Models::at(folder.path());
    assert!(matches!(models.active(), Err(ModelError::None)));
    assert_eq!(models.activate(ModelVersion([0; 32])).expect("asked"), Activation::Absent);
    let bundles = bundles(5);
    let first = install(&models, folder.path(), &bundles[0]);
    assert_eq!(models.activate(first).expect("activated"), Activation::Switched);
    assert_eq!(models.activate(first).expect("activated"), Activation::Already);
    let rest: Vec<ModelVersion> = bundles[1..].iter().map(|bundle| install(&models, folder.path(), bundle)).collect();
    let kept: Vec<ModelVersion> = models.list().expect("listed").iter().map(|kept| kept.version).collect();
    assert_eq!(kept, [first, rest[2], rest[3]]);
    assert_eq!(models.active().expect("active").0, first);
    assert!(!models.path(&rest[0]).exists() && models.path(&rest[3]).exists());
}

#[test]
fn a_rollback_goes_to_the_one_before_or_by_its_digits() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = Models::at(folder.path());
    let versions: Vec<ModelVersion> = bundles(4).iter().map(|bundle| install(&models, folder.path(), bundle)).collect();
    models.activate(versions[3]).expect("activated");
    assert_eq!(models.target(None).expect("found"), versions[2]);
    assert_eq!(models.target(Some(&versions[1].to_string()[..8])).expect("found"), versions[1]);
    let said = models.target(Some(&versions[0].to_string())).expect_err("pruned").to_string();
    assert!(said.contains("pruned") && said.lines().count() == 1, "{said}");
    models.activate(versions[1]).expect("activated");
    assert!(matches!(models.target(None), Err(ModelError::NothingEarlier(_))));
    assert!(matches!(models.target(Some("zz")), Err(ModelError::Ambiguous(..))));
}

#[test]
fn what_the_owner_went_back_from_is_not_taken_again_until_the_host_wants_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = Models::at(folder.path());
    let bundles = bundles(3);
    let [first, second, third] = [0, 1, 2].map(|k| install(&models, folder.path(), &bundles[k]));
    let active = || models.active().expect("active").0;
    models.activate(third).expect("activated");
    // Two steps back; the host says with every connection what it wants, and sends it again.
    assert_eq!(models.roll_back(second).expect("back"), Activation::Switched);
    assert_eq!(models.roll_back(first).expect("back"), Activation::Switched);
    install(&models, folder.path(), &bundles[2]);
    assert_eq!(models.activate(third).expect("asked"), Activation::Declined);
    assert_eq!(active(), first);
    let kept: Vec<ModelVersion> = models.list().expect("listed").iter().map(|kept| kept.version).collect();
    assert_eq!(kept, [first, second, third], "one that comes again stays where it was");
    // Another wish counts, and so does the former one after it.
    assert_eq!(models.activate(second).expect("asked"), Activation::Switched);
    assert_eq!(models.activate(third).expect("asked"), Activation::Switched);
    // The owner takes it again.
    models.roll_back(first).expect("back");
    assert_eq!(models.roll_back(third).expect("forth"), Activation::Switched);
    assert_eq!(models.activate(third).expect("asked"), Activation::Already);
    assert_eq!(active(), third);
}

#[test]
fn what_is_not_that_model_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = Models::at(folder.path());
    let bundle = &bundles(1)[0];
    let file = folder.path().join("bundle");
    fs::write(&file, bundle.to_bytes().expect("a bundle")).expect("written");
    assert!(matches!(models.install(ModelVersion([9; 32]), &file), Err(ModelError::Other { .. })));
    fs::write(&file, b"no bundle").expect("written");
    assert!(matches!(models.install(bundle.about.version(), &file), Err(ModelError::Bundle(_))));
    assert!(models.list().expect("listed").is_empty());
    fs::create_dir_all(folder.path().join("models")).expect("made");
    fs::write(folder.path().join("models/models.json"), b"{").expect("written");
    assert!(matches!(models.list(), Err(ModelError::Index { .. })));
}
