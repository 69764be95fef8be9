//! Plans, case by case.

use super::*;
use proptest::prelude::*;
use serde_json::json;

use crate::catalog::{Choice, ModelArgument, resolve};

/// 96 KiB for each token.
fn architecture(longest: u64) -> Architecture {
    Architecture::of(&json!({"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
        "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts_per_tok": 8,
        "vocab_size": 151936, "max_position_embeddings": longest}))
    .expect("an architecture")
}

fn planner(architecture: &Architecture) -> Planner {
    Planner {
        architecture: architecture.clone(),
        profile: EngineProfile::Batched,
        device: Device::Metal,
        weights: 17_200_000_000,
        asked: Asked::default(),
        step: None,
        estimated: false,
    }
}

fn asking(architecture: &Architecture, budget: u64, asked: Asked) -> Result<Plan, Refusal> {
    let planner = Planner {
        asked,
        ..planner(architecture)
    };
    planner.on(budget)
}

#[test]
fn shares_add_up_and_stay_within_what_is_planned_with() {
    let architecture = architecture(262_144);
    let budget = 40_000_000_000;
    let plan = planner(&architecture).on(budget).expect("a plan");
    let shares = plan.shares;
    assert_eq!(shares.taken() + shares.free, budget);
    assert!(shares.free >= budget / 20);
    let conversation = plan.window.tokens * 98_304;
    assert!(shares.conversation >= conversation);
    // Between turns the conversation is there, too.
    let limit = plan.cache_memory_mb.expect("a limit") << 20;
    let margin = limit - conversation - shares.prefix_cache;
    assert!((1 << 20..=2 << 20).contains(&margin), "{margin}");
    assert_eq!(plan.window.tokens % WINDOW_UNIT, 0);
    assert_eq!(plan.window.output, OUTPUTS[0]);
}

#[test]
fn the_window_is_bounded_by_the_model_and_by_the_client() {
    let ample = 1 << 40;
    let short = architecture(32_768);
    let plan = planner(&short).on(ample).expect("a plan");
    assert_eq!((plan.window.tokens, plan.bound), (32_768, Bound::Model));
    assert_eq!(plan.prefill_step, 2_048);
    let plan = planner(&architecture(262_144)).on(ample).expect("a plan");
    assert_eq!((plan.window.tokens, plan.bound), (199_680, Bound::Client));
}

#[test]
fn a_second_conversation_is_kept_where_the_window_can_be_no_wider() {
    let planner = planner(&architecture(262_144));
    let tight = planner.on(32_000_000_000).expect("a plan");
    assert_eq!((tight.bound, tight.conversations), (Bound::Memory, 1));
    let short_ones = tight.shares.prefix_cache;
    assert_eq!(short_ones, 98_304 * BESIDE);
    let ample = planner.on(1 << 40).expect("a plan");
    assert_eq!(ample.conversations, 2);
    assert_eq!(ample.shares.prefix_cache, ample.window.tokens * 98_304);
    let narrowed = planner.narrowed(&ample, 65_536, 1 << 40);
    assert_eq!(narrowed.conversations, 2);
    let limit = |plan: &Plan| plan.cache_memory_mb.expect("a limit") << 20;
    let given_up = limit(&ample) - limit(&narrowed);
    let told = (ample.window.tokens - 65_536) * ample.cache_bytes_per_token;
    assert!(given_up.abs_diff(told) < 2 << 20, "{given_up} {told}");
}

#[test]
fn what_is_asked_for_is_taken_to_the_token_or_refused() {
    let architecture = architecture(262_144);
    let ask = |budget, window, output| {
        let asked = Asked { window, output };
        asking(&architecture, budget, asked)
    };
    let plan = ask(1 << 40, Some(50_001), Some(16_000)).expect("a plan");
    assert_eq!((plan.window.tokens, plan.window.output), (50_001, 16_000));
    assert_eq!(plan.bound, Bound::Asked);
    let tight = 32_000_000_000;
    let Err(Refusal::Asked { window, fits }) = ask(tight, Some(150_000), Some(8_192)) else {
        panic!("too wide");
    };
    assert_eq!(window, 150_000);
    assert!(ask(tight, Some(fits), Some(8_192)).is_ok());
    assert!(ask(tight, Some(fits + WINDOW_UNIT), Some(8_192)).is_err());
    assert_eq!(
        ask(1 << 40, Some(20_000), Some(8_192)),
        Err(Refusal::Reply {
            window: 20_000,
            needed: 27_076
        })
    );
    assert_eq!(
        ask(1 << 40, Some(300_000), None),
        Err(Refusal::Model {
            longest: 262_144,
            needed: 300_000
        })
    );
    assert!(matches!(
        ask(17_000_000_000, None, None),
        Err(Refusal::Memory { .. })
    ));
}

#[test]
fn where_nothing_fits_the_thriftiest_way_is_tried() {
    let architecture = architecture(262_144);
    let tried = |window, output| {
        let planner = Planner {
            asked: Asked { window, output },
            ..planner(&architecture)
        };
        let plan = planner.thriftiest_on(17_000_000_000);
        assert_eq!(plan.prefill_step, STEPS[0]);
        assert_eq!(plan.shares.free, 0);
        (plan.window.tokens, plan.window.output)
    };
    assert_eq!(tried(None, None), (22_980, 4_096));
    assert_eq!(tried(None, Some(8_192)), (27_076, 8_192));
    assert_eq!(tried(Some(26_000), None), (26_000, 4_096));
    assert_eq!(tried(Some(50_000), None), (50_000, 8_192));
}

#[test]
fn a_smaller_window_is_served_the_same_way_and_takes_less() {
    let architecture = architecture(262_144);
    let (planner, budget) = (planner(&architecture), 40_000_000_000);
    let plan = planner.on(budget).expect("a plan");
    let narrowed = planner.narrowed(&plan, 32_768, budget);
    assert_eq!(narrowed.prefill_step, plan.prefill_step);
    assert!(narrowed.shares.taken() < plan.shares.taken());
    let kept = |plan: &Plan| plan.shares.conversation + plan.shares.prefix_cache;
    let tokens = plan.window.tokens - narrowed.window.tokens;
    let given_back = kept(&plan) - kept(&narrowed);
    // But for rounding.
    let told = tokens * plan.kept_bytes_per_token;
    assert!(
        given_back - tokens < told && told <= given_back,
        "{told} {given_back}"
    );
    assert_eq!(narrowed.window.output, plan.window.output);
}

#[test]
fn a_step_that_cannot_be_chosen_is_planned_with() {
    let architecture = architecture(262_144);
    let plan = |step| {
        let planner = Planner {
            device: Device::Other,
            profile: EngineProfile::Simple,
            step,
            ..planner(&architecture)
        };
        planner.on(40_000_000_000).expect("a plan")
    };
    let (chosen, told) = (plan(None), plan(Some(MULTIMODAL_STEP)));
    assert_eq!(told.prefill_step, MULTIMODAL_STEP);
    assert!(chosen.prefill_step < MULTIMODAL_STEP);
    assert!(told.window.tokens < chosen.window.tokens);
}

proptest! {
    #[test]
    fn more_memory_never_gives_a_smaller_window_nor_a_slower_step(
        gib in 8_u64..200,
        more in 1_u64..20_000_000_000,
        heads in 1_u64..9,
        simple in any::<bool>(),
        metal in any::<bool>(),
        output in prop::option::of(1_024_u64..20_000),
    ) {
        let mut architecture = architecture(262_144);
        for layer in &mut architecture.layers {
            if let crate::memory::architecture::Attention::Full(own) = &mut layer.attention {
                own.key_value = heads;
            }
        }
        let planner = Planner {
            profile: if simple { EngineProfile::Simple } else { EngineProfile::Batched },
            device: if metal { Device::Metal } else { Device::Other },
            asked: Asked { window: None, output },
            ..planner(&architecture)
        };
        let plan = |budget| planner.on(budget);
        let (less, more) = (plan(gib << 30), plan((gib << 30) + more));
        if let Ok(less) = less {
            let more = more.expect("it had a plan with less");
            prop_assert!(less.window.tokens >= smallest_window(less.window.output));
            prop_assert!(more.window.output >= less.window.output);
            prop_assert!(more.window.tokens >= less.window.tokens);
            if more.window.tokens == less.window.tokens && more.window.output == less.window.output {
                prop_assert!(more.prefill_step >= less.prefill_step);
                prop_assert!(more.conversations >= less.conversations || more.prefill_step > less.prefill_step);
            }
            prop_assert!(less.shares.taken() <= (gib << 30));
        }
    }
}

fn of_choice(choice: &Choice, config: Option<Value>, source: WeightsSource) -> Planner {
    let model = resolve(choice, config.as_ref()).expect("a model");
    let weights = (5_000_000_000, source);
    let asked = Asked::default();
    Planner::of(&model, config.as_ref(), weights, Device::Metal, asked)
}

#[test]
fn a_model_of_the_catalogue_needs_no_files_and_another_its_configuration() {
    let gemma = Choice::Flag("gemma-light".into());
    let known = of_choice(&gemma, None, WeightsSource::Catalog);
    assert!(known.estimated);
    let known = of_choice(&gemma, None, WeightsSource::Disk);
    assert!(!known.estimated);
    assert_eq!(known.step, None);
    let folder = Choice::Argument(ModelArgument::Folder("/models/own".into()));
    let guessed = of_choice(&folder, None, WeightsSource::Disk);
    assert!(guessed.estimated);
    let plan = guessed.on(64 << 30).expect("a plan");
    assert_eq!((plan.window.tokens, plan.bound), (65_536, Bound::Guess));
    let config = json!({"model_type": "qwen3", "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 6144, "vocab_size": 151936, "max_position_embeddings": 40960});
    let own = of_choice(&folder, Some(config), WeightsSource::Disk);
    let plan = own.on(24 << 30).expect("a plan");
    assert_eq!((plan.window.tokens, plan.estimated), (40_960, false));
}

#[test]
fn the_multimodal_route_has_a_step_of_its_own() {
    let entry = resolve(&Choice::Flag("gemma".into()), None).expect("a model");
    let planned = |model: &Model, config: Option<&Value>| {
        let weights = (16_000_000_000, WeightsSource::Catalog);
        Planner::of(model, config, weights, Device::Metal, Asked::default()).step
    };
    assert_eq!(planned(&entry, None), None);
    let whole = entry.whole();
    assert_eq!(planned(&whole, None), Some(MULTIMODAL_STEP));
    let with_pictures = json!({"model_type": "gemma4", "vision_config": {}});
    assert_eq!(planned(&whole, Some(&with_pictures)), Some(MULTIMODAL_STEP));
    let text_alone = json!({"model_type": "gemma4_text"});
    assert_eq!(planned(&whole, Some(&text_alone)), None);
}
