//! Label sets of OTLP series: attributes of the point, promoted attributes of the resource, `job` and `instance`, the
//! scope; and their canonical bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use model::METRIC_NAME;
use model::labels::push_pair;

use super::Settings;
use super::names::label_name;
use super::value::{Attribute, Attributes};

const SERVICE_NAME: &str = "service.name";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_INSTANCE: &str = "service.instance.id";

/// Labels by name, without the metric's name.
pub(super) type LabelSet<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// What a resource adds to its series.
pub(super) struct Resource<'a> {
    job: Option<String>,
    instance: Option<String>,
    promoted: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Resource<'a> {
    pub(super) fn new(attributes: &Attributes<'a>, settings: &Settings) -> Result<Self, String> {
        let job = attributes.get(SERVICE_NAME).map(|name| match attributes.get(SERVICE_NAMESPACE) {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        });
        let mut promoted = Vec::new();
        for (name, value) in &attributes.list {
            if settings.promote.takes(name) {
                promoted.push((label_name(name, settings)?, value.clone()));
            }
        }
        Ok(Self { job, instance: attributes.get(SERVICE_INSTANCE).map(str::to_owned), promoted })
    }

    /// The labels of `target_info`, or `None` when it would say nothing or nothing identifies the target.
    pub(super) fn target_info(
        &self,
        attributes: &Attributes<'a>,
        settings: &Settings,
    ) -> Result<Option<LabelSet<'a>>, String> {
        let identifying = |name: &str| [SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE].contains(&name);
        if attributes.list.iter().all(|(name, _)| identifying(name)) {
            return Ok(None);
        }
        let mut set = LabelSet::new();
        let kept = |name: &str| settings.keep_identifying || !identifying(name);
        add_attributes(&mut set, &attributes.list, settings, kept)?;
        self.identify(&mut set);
        Ok((set.contains_key("job") || set.contains_key("instance")).then_some(set))
    }

    fn identify(&self, set: &mut LabelSet<'a>) {
        for (name, value) in [("job", &self.job), ("instance", &self.instance)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                set.insert(Cow::Borrowed(name), Cow::Owned(value.clone()));
            }
        }
    }
}

/// What a scope adds to its series.
#[derive(Default)]
pub(super) struct Scope<'a> {
    labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(
        (name, version, schema_url): (&'a str, &'a str, &'a str),
        attributes: &Attributes<'a>,
        settings: &Settings,
    ) -> Result<Self, String> {
        if !settings.promote_scope || name.is_empty() {
            return Ok(Self::default());
        }
        let mut labels = Vec::new();
        for (key, value) in &attributes.list {
            let long = format!("otel_scope_{key}");
            labels.push((Cow::Owned(label_name(&long, settings)?.into_owned()), value.clone()));
        }
        for (key, value) in [("name", name), ("version", version), ("schema_url", schema_url)] {
            labels.push((Cow::Owned(format!("otel_scope_{key}")), Cow::Borrowed(value)));
        }
        Ok(Self { labels })
    }
}

/// The labels of a point's series.
pub(super) fn of_point<'a>(
    attributes: &Attributes<'a>,
    resource: &Resource<'a>,
    scope: &Scope<'a>,
    settings: &Settings,
) -> Result<LabelSet<'a>, String> {
    let mut set = LabelSet::new();
    add_attributes(&mut set, &attributes.list, settings, |name| name != METRIC_NAME)?;
    for (name, value) in &resource.promoted {
        if set.get(name).is_none_or(|own| own.is_empty()) {
            set.insert(name.clone(), value.clone());
        }
    }
    resource.identify(&mut set);
    for (name, value) in &scope.labels {
        set.insert(name.clone(), value.clone());
    }
    Ok(set)
}

/// Adds those of `attributes` that are `wanted`. Attributes whose names become the same label are joined by `;`, in the
/// order of their names as sent.
fn add_attributes<'a>(
    set: &mut LabelSet<'a>,
    attributes: &[Attribute<'a>],
    settings: &Settings,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let mut sorted: Vec<&Attribute<'a>> = attributes.iter().filter(|(name, _)| wanted(name)).collect();
    sorted.sort_by_key(|(name, _)| *name);
    for (name, value) in sorted {
        match set.entry(label_name(name, settings)?) {
            Entry::Vacant(entry) => {
                entry.insert(value.clone());
            }
            Entry::Occupied(mut entry) if entry.get().is_empty() => {
                entry.insert(value.clone());
            }
            Entry::Occupied(mut entry) => {
                let joined = entry.get_mut().to_mut();
                joined.push(';');
                joined.push_str(value);
            }
        }
    }
    Ok(())
}

/// Appends the canonical bytes of `set` with a metric name and perhaps one more label, which win over those of `set`.
pub(super) fn push_canonical(
    out: &mut Vec<u8>,
    set: &LabelSet<'_>,
    metric: &str,
    extra: Option<(&str, &str)>,
) {
    let mut added = [Some((METRIC_NAME, metric)), extra];
    added.sort_by_key(|pair| pair.map(|(name, _)| name));
    let mut added = added.into_iter().flatten().peekable();
    for (name, value) in set {
        while let Some((own, text)) = added.next_if(|(own, _)| *own < name.as_ref()) {
            push_pair(out, own, text);
        }
        let replaced = name == METRIC_NAME || extra.is_some_and(|(own, _)| own == name);
        if !replaced && !value.is_empty() {
            push_pair(out, name, value);
        }
    }
    for (own, text) in added {
        push_pair(out, own, text);
    }
}
