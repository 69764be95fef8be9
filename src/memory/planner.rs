//! Plans for one model on any budget: what a preflight compares.

use serde_json::Value;

use super::WeightsSource;
use super::architecture::Architecture;
use super::known;
use super::plan::{Inputs, MULTIMODAL_STEP, Plan, Refusal};
use super::window::Asked;
use super::working::Device;
use crate::catalog::{EngineProfile, Model, Source};

/// All that a plan needs but the budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planner {
    pub architecture: Architecture,
    pub profile: EngineProfile,
    pub device: Device,
    /// In bytes.
    pub weights: u64,
    pub asked: Asked,
    /// See [`Inputs::step`].
    pub step: Option<u64>,
    pub estimated: bool,
}

impl Planner {
    /// `config`: the model's own `config.json`, if it is on this disk. None: too little is known of its layers.
    pub fn of(
        model: &Model,
        config: Option<&Value>,
        weights: (u64, WeightsSource),
        device: Device,
        asked: Asked,
    ) -> Option<Self> {
        let id = match &model.source {
            Source::Hub(id) => id,
            Source::Folder(_) => "",
        };
        let (architecture, estimated) = known::architecture(id, config)?;
        let step = model
            .takes_multimodal_route(config)
            .then_some(MULTIMODAL_STEP);
        let (weights, source) = weights;
        Some(Self {
            architecture,
            profile: model.engine_profile,
            device,
            weights,
            asked,
            step,
            estimated: estimated || source != WeightsSource::Disk,
        })
    }

    /// The plan on a budget, in bytes: the machine's less what others take.
    pub fn on(&self, budget: u64) -> Result<Plan, Refusal> {
        Plan::of(&self.inputs(budget))
    }

    /// What is tried on a budget, in bytes, where it holds no plan.
    pub fn thriftiest_on(&self, budget: u64) -> Plan {
        Plan::thriftiest(&self.inputs(budget))
    }

    /// The same plan with a smaller window, in tokens. `budget`: the plan's, in bytes.
    pub fn narrowed(&self, plan: &Plan, window: u64, budget: u64) -> Plan {
        plan.narrowed(&self.inputs(budget), window)
    }

    fn inputs(&self, budget: u64) -> Inputs<'_> {
        Inputs {
            architecture: &self.architecture,
            profile: self.profile,
            device: self.device,
            weights: self.weights,
            budget,
            asked: self.asked,
            step: self.step,
            estimated: self.estimated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Choice, ModelArgument, resolve};
    use serde_json::json;

    fn planner(choice: &Choice, config: Option<Value>, source: WeightsSource) -> Option<Planner> {
        let model = resolve(choice, config.as_ref()).expect("a model");
        let weights = (5_000_000_000, source);
        let asked = Asked::default();
        Planner::of(&model, config.as_ref(), weights, Device::Metal, asked)
    }

    #[test]
    fn a_model_of_the_catalogue_needs_no_files_and_another_its_configuration() {
        let gemma = Choice::Flag("gemma-light".into());
        let known = planner(&gemma, None, WeightsSource::Catalog).expect("known");
        assert!(known.estimated);
        let known = planner(&gemma, None, WeightsSource::Disk).expect("known");
        assert!(!known.estimated);
        assert_eq!(known.step, None);
        let folder = Choice::Argument(ModelArgument::Folder("/models/own".into()));
        assert_eq!(planner(&folder, None, WeightsSource::Disk), None);
        let config = json!({"model_type": "qwen3", "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16,
            "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 6144, "vocab_size": 151936, "max_position_embeddings": 40960});
        let own = planner(&folder, Some(config), WeightsSource::Disk).expect("read");
        let plan = own.on(24 << 30).expect("a plan");
        assert_eq!((plan.window.tokens, plan.estimated), (40_960, false));
    }

    #[test]
    fn the_multimodal_route_has_a_step_of_its_own() {
        let entry = resolve(&Choice::Flag("gemma".into()), None).expect("a model");
        let planned = |model: &Model, config: Option<&Value>| {
            let weights = (16_000_000_000, WeightsSource::Catalog);
            let made = Planner::of(model, config, weights, Device::Metal, Asked::default());
            made.expect("known").step
        };
        assert_eq!(planned(&entry, None), None);
        let whole = entry.whole();
        assert_eq!(planned(&whole, None), Some(MULTIMODAL_STEP));
        let with_pictures = json!({"model_type": "gemma4", "vision_config": {}});
        assert_eq!(planned(&whole, Some(&with_pictures)), Some(MULTIMODAL_STEP));
        let text_alone = json!({"model_type": "gemma4_text"});
        assert_eq!(planned(&whole, Some(&text_alone)), None);
    }
}
