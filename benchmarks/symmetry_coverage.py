"""Derive and check the permutation symmetries of many architectures: torchvision, timm, Hugging Face transformers.

    pip install 'starscape[bench]'
    python benchmarks/symmetry_coverage.py [library or model …]

Writes `symmetry_coverage.json` beside this file: for each architecture whether a random permutation kept its function (float64,
randomised parameters, eval and train mode), the relative error, coverage, and CPU seconds to trace and derive.
"""

import contextlib
import json
import platform
import re
import signal
import sys
import time
import warnings
from pathlib import Path

import torch

from starscape.data import SymmetryError, require_torchvision
from starscape.symmetry import PermutationSymmetry

RESULTS = Path(__file__).with_suffix(".json")
SECONDS_EACH = 60
LARGEST = 60e6

TORCHVISION = {  # the smallest of each classification family, and a size of image it takes
    "alexnet": 96, "convnext_tiny": 64, "densenet121": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64, "googlenet": 96,
    "inception_v3": 299, "maxvit_t": 224, "mnasnet0_5": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "regnet_x_400mf": 64,
    "regnet_y_400mf": 64, "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64, "shufflenet_v2_x1_0": 64, "squeezenet1_0": 64,
    "swin_t": 64, "swin_v2_t": 64, "vgg11": 64, "vgg11_bn": 64, "vit_b_16": 224, "wide_resnet50_2": 64,
}


def torchvision_models():
    models = require_torchvision().models
    for name, size in TORCHVISION.items():
        settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        yield name, name, lambda n=name, s=settings: getattr(models, n)(**s), lambda m, n=size: torch.randn(2, 3, n, n)


SMALL = ("test_", "atto", "femto", "pico", "nano", "xxt", "xxs", "xtiny", "tiny", "mini", "micro", "_xs", "_t0", "_t_", "_s0", "_s12",
         "_b0", "_b1", "18", "small", "_10", "_14", "_16", "26", "050", "_lite", "34", "_s", "_m", "50", "base", "_b")  # fmt: skip
MORE_TIMM = ("resnest14d", "convit_tiny", "xcit_nano_12_p16_224", "resmlp_12_224", "gmixer_24_224", "eca_resnet33ts", "botnet26t_256",
             "lambda_resnet26t", "halo2botnet50ts_256", "seresnext26t_32x4d", "res2net50_14w_8s", "mobileone_s0", "repvgg_a0",
             "resnetv2_50x1_bit", "nf_resnet26", "gcresnet33ts", "bat_resnext26ts", "volo_d1_224", "vit_relpos_small_patch16_224",
             "swinv2_cr_tiny_224", "coatnet_nano_rw_224", "mixer_s32_224", "deit3_small_patch16_224", "skresnext50_32x4d", "levit_128s", "gmlp_s16_224",
             "regnetx_002")  # fmt: skip


# more of the same families: other attention, positions, norms, gates and fusions; the smallest, made shallower where the constructor can
SHALLOW_TIMM = """
    vit_small_patch16_rope_224 vit_small_patch16_rope_mixed_224 vit_medium_patch16_rope_reg1_gap_256 vit_small_patch16_dinov3
    vit_tiny_patch16_dinov3_qkvb eva02_base_patch16_clip_224 beit_base_patch16_224 beitv2_base_patch16_224
    vit_pe_core_tiny_patch16_384 vit_pe_spatial_tiny_patch16_512 naflexvit_base_patch16_gap naflexvit_base_patch16_map
    naflexvit_base_patch16_parfac_gap samvit_base_patch16 caformer_s18 convformer_s18 poolformerv2_s12 coat_lite_tiny
    coatnet_rmlp_nano_rw_224 maxxvit_rmlp_nano_rw_256 maxvit_tiny_tf_224 mobilenetv4_hybrid_medium mobilevitv2_100 nextvit_small
    levit_conv_384_s8 mambaout_femto aimv2_1b_patch14_224 cait_xs24_384 crossvit_18_dagger_240 twins_pcpvt_small pvt_v2_b2_li
    tnt_s_legacy_patch16_224 pit_ti_distilled_224 deit_tiny_distilled_patch16_224 vit_base_mci_224
    vit_so150m_patch16_reg4_map_256 vit_base_patch16_xp_224 vit_relpos_base_patch16_clsgap_224 vit_srelpos_small_patch16_224
    vit_base_patch16_clip_quickgelu_224 vit_intern300m_patch14_448 flexivit_small gmlp_ti16_224 fastvit_sa12 fastvit_mci0
    iformer_m_distilled convnextv2_atto convnext_atto_ols convnext_atto_rms convnext_zepto_rms_ols mvitv2_small_cls
    davit_base_fl hiera_small_abswin_256 hieradet_small efficientvim_m1_dist gemma4_vit_167m qwen3_vit_88m qwen3_vit_88m_merge
    deepseek_vit_412m vitamin_large2_224 halonet50ts lambda_resnet26rpt_256 lamhalobotnet50ts_256 haloregnetz_b sehalonet33ts
    sebotnet33ts_256 eca_halonext26ts eca_botnext26ts_256 dm_nfnet_f0 eca_nfnet_l0 nfnet_f0 nf_regnet_b0 nf_seresnet26
    nf_ecaresnet26 resnetv2_50d_evos resnetv2_50d_frn resnetv2_50d_gn regnetz_b16_evos regnetv_040 regnety_040_sgn gernet_s
    repvgg_b1g4 darknetaa53 cspresnext50 cs3edgenet_x cs3sedarknet_xdw densenetblur121d dla60_res2next dla46_c ecaresnet26t
    ecaresnet50d_pruned efficientnet_cc_b0_4e efficientnet_b0_gn efficientnet_b0_g16_evos efficientnet_blur_b0 efficientnet_es
    mixnet_s tf_mixnet_s tf_efficientnet_b0 tf_efficientnetv2_b0 fbnetc_100 fbnetv3_b ghostnetv2_100 hgnetv2_b0 hrnet_w18_ssld
    inception_resnet_v2 lcnet_100 legacy_seresnext26_32x4d mobilenet_edgetpu_v2_xs mobilenetv3_rw mobilenetv4_conv_small
    mobilenetv4_conv_aa_medium mobilenetv4_conv_blur_medium nasnetalarge pnasnet5large rexnetr_100 res2next50 resnet50_clip
    resnet50_gn resnet50_mlp resnetaa34d resnetblur18 resnetrs50 semnasnet_100 senet154 seresnextaa101d_32x8d spnasnet_100
    swinv2_cr_tiny_ns_224 test_coatnet test_vit2 test_vit3 test_vit4 tinynet_e vovnet39a ese_vovnet39b_evos
    gc_efficientnetv2_rw_t gcresnext26ts cpubone_b0_bfrobust cpubone_b1_dwnorm nest_tiny_jx sam2_hiera_base_plus
    vit_small_resnet26d_224 vit_relpos_base_patch32_plus_rpn_256 convnext_tiny_hnf test_efficientnet_ln test_convnext2
    coatnext_nano_rw_224 coatnet_nano_cc_224 maxxvitv2_nano_rw_256 maxvit_rmlp_pico_rw_256 edgenext_small_rw regnetz_b16
    tf_efficientnet_el hardcorenas_a
""".split()  # fmt: skip  # noqa: SIM905
SHALLOWER = (dict(depth=2, embed_dim=96, num_heads=3), dict(depth=2), dict(depths=(1, 1, 2, 1), dims=(16, 32, 48, 64)),
             dict(depths=(1, 1, 2, 1)), dict(layers=(1, 1, 1, 1)), {})  # fmt: skip


def timm_models():
    require_torchvision()
    import timm

    def rank(name):
        return next((i for i, part in enumerate(SMALL) if part in name), len(SMALL)), len(name), name

    def example(model):
        size = model.default_cfg["input_size"]
        for shape in ((3, 64, 64), (3, 128, 128), size):
            try:
                with torch.no_grad():
                    model.eval()(torch.randn(2, *shape))
            except Exception:
                continue
            return torch.randn(2, *shape)
        return torch.randn(2, *size)

    families = {module: min(timm.list_models(module=module), key=rank) for module in timm.list_modules() if timm.list_models(module=module)}
    picked = [*((name, name) for name in MORE_TIMM if timm.is_model(name)), *families.items()]
    picked = [(family, name) for family, name in picked if name not in SHALLOW_TIMM]
    for family, name in picked:
        yield family, name, lambda n=name: timm.create_model(n, num_classes=10), example

    def shallow(name):
        for settings in SHALLOWER:
            with contextlib.suppress(Exception):
                return timm.create_model(name, num_classes=10, **settings)
        raise ValueError(f"{name} cannot be made")

    for name in SHALLOW_TIMM:
        yield name.split("_")[0], name, lambda n=name: shallow(n), example


def transformers_models():
    require_torchvision()
    import transformers as hf

    hf.logging.set_verbosity_error()
    text = dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    grouped = dict(text, num_key_value_heads=2)
    image = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8)
    sequence = dict(vocab_size=99, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
                    encoder_ffn_dim=64, decoder_ffn_dim=64)
    stages = dict(hidden_sizes=[8, 16, 32, 32], depths=[1, 1, 1, 1])
    ids, target = torch.randint(0, 99, (2, 12)), torch.randint(0, 99, (2, 7))
    words, both = dict(input_ids=ids), dict(input_ids=ids, decoder_input_ids=target)
    pixels, large = dict(pixel_values=torch.randn(2, 3, 32, 32)), dict(pixel_values=torch.randn(2, 3, 64, 64))
    cases = {
        "bert": (hf.BertForSequenceClassification, hf.BertConfig(**text), words),
        "bert-mlm": (hf.BertForMaskedLM, hf.BertConfig(**text), words),
        "roberta": (hf.RobertaForSequenceClassification, hf.RobertaConfig(**text), words),
        "albert": (hf.AlbertForSequenceClassification, hf.AlbertConfig(**text, embedding_size=16), words),
        "electra": (hf.ElectraForSequenceClassification, hf.ElectraConfig(**text, embedding_size=16), words),
        "deberta-v2": (hf.DebertaV2ForSequenceClassification,
                       hf.DebertaV2Config(**text, relative_attention=True, pos_att_type=["p2c", "c2p"]), words),
        "distilbert": (hf.DistilBertForSequenceClassification,
                       hf.DistilBertConfig(vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=64), words),
        "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4), words),
        "gpt-neox": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig(**text), words),
        "opt": (hf.OPTForCausalLM, hf.OPTConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64,
                                                word_embed_proj_dim=32), words),
        "llama-grouped-tied": (hf.LlamaForCausalLM, hf.LlamaConfig(**grouped, tie_word_embeddings=True), words),
        "mistral": (hf.MistralForCausalLM, hf.MistralConfig(**grouped), words),
        "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config(**grouped), words),
        "gemma": (hf.GemmaForCausalLM, hf.GemmaConfig(**dict(grouped, num_key_value_heads=1), head_dim=8), words),
        "t5": (hf.T5ForConditionalGeneration, hf.T5Config(vocab_size=99, d_model=32, num_layers=2, num_heads=4, d_ff=64, d_kv=8), both),
        "bart": (hf.BartForConditionalGeneration, hf.BartConfig(**sequence), both),
        "mamba": (hf.MambaForCausalLM, hf.MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, state_size=4), words),
        "vit": (hf.ViTForImageClassification, hf.ViTConfig(**image), pixels),
        "swin": (hf.SwinForImageClassification,
                 hf.SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4), pixels),
        "convnext": (hf.ConvNextForImageClassification, hf.ConvNextConfig(**stages), large),
        "resnet": (hf.ResNetForImageClassification, hf.ResNetConfig(embedding_size=8, **stages), large),
        "clip": (hf.CLIPModel, hf.CLIPConfig(text_config=text, vision_config=image, projection_dim=16), {**words, **pixels}),
    }  # fmt: skip
    short = dict(text, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    pairs = dict(short, num_key_value_heads=2)
    translation = dict(sequence, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
    cases |= {
        "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config(**dict(pairs, head_dim=8)), words),
        "qwen3-tied": (hf.Qwen3ForCausalLM, hf.Qwen3Config(**dict(pairs, head_dim=8, tie_word_embeddings=True)), words),
        "gemma2": (hf.Gemma2ForCausalLM, hf.Gemma2Config(**dict(pairs, head_dim=8)), words),
        "gemma3": (hf.Gemma3ForCausalLM, hf.Gemma3TextConfig(**dict(pairs, head_dim=8)), words),
        "phi": (hf.PhiForCausalLM, hf.PhiConfig(**pairs), words),
        "phi3": (hf.Phi3ForCausalLM, hf.Phi3Config(**pairs), words),
        "bloom": (hf.BloomForCausalLM, hf.BloomConfig(**dict(vocab_size=99, hidden_size=32, n_layer=2, n_head=4)), words),
        "falcon": (hf.FalconForCausalLM, hf.FalconConfig(**dict(short, multi_query=True)), words),
        "falcon-new": (hf.FalconForCausalLM, hf.FalconConfig(**dict(short, new_decoder_architecture=True, num_kv_heads=2)), words),
        "falcon-alibi": (hf.FalconForCausalLM, hf.FalconConfig(**dict(short, alibi=True, multi_query=False)), words),
        "mpt": (hf.MptForCausalLM, hf.MptConfig(**dict(vocab_size=99, d_model=32, n_layers=2, n_heads=4, max_seq_len=64)), words),
        "gptj": (hf.GPTJForCausalLM,
                 hf.GPTJConfig(**dict(vocab_size=99, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=64)), words),
        "codegen": (hf.CodeGenForCausalLM,
                    hf.CodeGenConfig(**dict(vocab_size=99, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=64)), words),
        "gpt-neo": (hf.GPTNeoForCausalLM,
                    hf.GPTNeoConfig(**dict(vocab_size=99, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"],
                        1]], max_position_embeddings=64)), words),
        "gpt-bigcode": (hf.GPTBigCodeForCausalLM, hf.GPTBigCodeConfig(**dict(vocab_size=99, n_embd=32, n_layer=2, n_head=4)), words),
        "starcoder2": (hf.Starcoder2ForCausalLM, hf.Starcoder2Config(**pairs), words),
        "stablelm": (hf.StableLmForCausalLM, hf.StableLmConfig(**pairs), words),
        "stablelm-qk": (hf.StableLmForCausalLM, hf.StableLmConfig(**dict(pairs, qk_layernorm=True, use_parallel_residual=True)), words),
        "olmo": (hf.OlmoForCausalLM, hf.OlmoConfig(**pairs), words),
        "olmo2": (hf.Olmo2ForCausalLM, hf.Olmo2Config(**pairs), words),
        "cohere": (hf.CohereForCausalLM, hf.CohereConfig(**dict(pairs, use_qk_norm=True)), words),
        "granite": (hf.GraniteForCausalLM, hf.GraniteConfig(**pairs), words),
        "mixtral": (hf.MixtralForCausalLM, hf.MixtralConfig(**dict(pairs, num_local_experts=4, num_experts_per_tok=2)), words),
        "qwen2moe": (hf.Qwen2MoeForCausalLM,
                     hf.Qwen2MoeConfig(**dict(pairs, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16)), words),
        "deepseek-v3": (hf.DeepseekV3ForCausalLM,
                        hf.DeepseekV3Config(**dict(short, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=2,
                            topk_group=1, moe_intermediate_size=16, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4,
                            v_head_dim=8, first_k_dense_replace=1)), words),
        "gpt-oss": (hf.GptOssForCausalLM, hf.GptOssConfig(**dict(pairs, num_local_experts=4, num_experts_per_tok=2, head_dim=8)), words),
        "mamba2": (hf.Mamba2ForCausalLM,
                   hf.Mamba2Config(**dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, state_size=4, num_heads=8, head_dim=8,
                       n_groups=2, chunk_size=4)), words),
        "falcon-mamba": (hf.FalconMambaForCausalLM,
                         hf.FalconMambaConfig(**dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, state_size=4)), words),
        "recurrent-gemma": (hf.RecurrentGemmaForCausalLM, hf.RecurrentGemmaConfig(**dict(pairs, lru_width=32, num_hidden_layers=3)), words),
        "rwkv": (hf.RwkvForCausalLM,
                 hf.RwkvConfig(**dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, intermediate_size=64)),
                     words),
        "xglm": (hf.XGLMForCausalLM, hf.XGLMConfig(**dict(vocab_size=99, d_model=32, num_layers=2, attention_heads=4, ffn_dim=64)), words),
        "biogpt": (hf.BioGptForCausalLM, hf.BioGptConfig(**short), words),
        "ctrl": (hf.CTRLLMHeadModel, hf.CTRLConfig(**dict(vocab_size=99, n_embd=32, dff=64, n_layer=2, n_head=4)), words),
        "openai-gpt": (hf.OpenAIGPTLMHeadModel, hf.OpenAIGPTConfig(**dict(vocab_size=99, n_embd=32, n_layer=2, n_head=4)), words),
        "nemotron": (hf.NemotronForCausalLM, hf.NemotronConfig(**pairs), words),
        "persimmon": (hf.PersimmonForCausalLM, hf.PersimmonConfig(**short), words),
        "helium": (hf.HeliumForCausalLM, hf.HeliumConfig(**dict(pairs, head_dim=8)), words),
        "glm": (hf.GlmForCausalLM, hf.GlmConfig(**dict(pairs, head_dim=8)), words),
        "smollm3": (hf.SmolLM3ForCausalLM, hf.SmolLM3Config(**pairs), words),
        "exaone4": (hf.Exaone4ForCausalLM, hf.Exaone4Config(**pairs), words),
        "modernbert-dec": (hf.ModernBertDecoderForCausalLM, hf.ModernBertDecoderConfig(**short), words),
        "lfm2": (hf.Lfm2ForCausalLM, hf.Lfm2Config(**dict(pairs, layer_types=["conv", "full_attention"])), words),
        "deberta": (hf.DebertaForSequenceClassification,
                    hf.DebertaConfig(**dict(short, relative_attention=True, pos_att_type=["p2c", "c2p"])), words),
        "deberta-plain": (hf.DebertaForSequenceClassification, hf.DebertaConfig(**short), words),
        "deberta-v2-conv": (hf.DebertaV2ForMaskedLM,
                            hf.DebertaV2Config(**dict(short, relative_attention=True, pos_att_type=["p2c", "c2p"], conv_kernel_size=3,
                                share_att_key=True, position_buckets=8)), words),
        "xlm-roberta": (hf.XLMRobertaForMaskedLM, hf.XLMRobertaConfig(**short), words),
        "camembert": (hf.CamembertForMaskedLM, hf.CamembertConfig(**short), words),
        "electra-mlm": (hf.ElectraForMaskedLM, hf.ElectraConfig(**dict(short, embedding_size=16)), words),
        "mobilebert": (hf.MobileBertForSequenceClassification,
                       hf.MobileBertConfig(**dict(short, embedding_size=16, intra_bottleneck_size=16)), words),
        "squeezebert": (hf.SqueezeBertForSequenceClassification, hf.SqueezeBertConfig(**dict(short, embedding_size=32)), words),
        "convbert": (hf.ConvBertForSequenceClassification, hf.ConvBertConfig(**dict(short, embedding_size=16)), words),
        "fnet": (hf.FNetForSequenceClassification, hf.FNetConfig(**short), words),
        "funnel": (hf.FunnelForSequenceClassification,
                   hf.FunnelConfig(**dict(vocab_size=99, block_sizes=[1, 1], d_model=32, n_head=4, d_head=8, d_inner=64)), words),
        "mpnet": (hf.MPNetForSequenceClassification, hf.MPNetConfig(**short), words),
        "xlnet": (hf.XLNetForSequenceClassification,
                  hf.XLNetConfig(**dict(vocab_size=99, d_model=32, n_layer=2, n_head=4, d_inner=64)), words),
        "bigbird": (hf.BigBirdForSequenceClassification, hf.BigBirdConfig(**dict(short, attention_type="original_full")), words),
        "roformer": (hf.RoFormerForSequenceClassification, hf.RoFormerConfig(**dict(short, embedding_size=32)), words),
        "rembert": (hf.RemBertForSequenceClassification,
                    hf.RemBertConfig(**dict(short, input_embedding_size=16, output_embedding_size=16)), words),
        "esm": (hf.EsmForMaskedLM, hf.EsmConfig(**dict(short, position_embedding_type="rotary", mask_token_id=5)), words),
        "ernie": (hf.ErnieForMaskedLM, hf.ErnieConfig(**short), words),
        "megatron": (hf.MegatronBertForMaskedLM, hf.MegatronBertConfig(**short), words),
        "modernbert": (hf.ModernBertForMaskedLM, hf.ModernBertConfig(**short), words),
        "canine": (hf.CanineForSequenceClassification,
                   hf.CanineConfig(**dict(short, num_hash_functions=2, num_hash_buckets=16, local_transformer_stride=4)), words),
        "xmod": (hf.XmodForSequenceClassification, hf.XmodConfig(**dict(short, languages=("en_XX",), default_language="en_XX")), words),
        "flaubert": (hf.FlaubertForSequenceClassification,
                     hf.FlaubertConfig(**dict(n_words=99, vocab_size=99, emb_dim=32, n_layers=2, n_heads=4)), words),
        "nomic": (hf.NomicBertForMaskedLM, hf.NomicBertConfig(**short), words),
        "t5-gated": (hf.T5ForConditionalGeneration,
                     hf.T5Config(**dict(vocab_size=99, d_model=32, num_layers=2, num_heads=4, d_ff=64, d_kv=8,
                         feed_forward_proj="gated-gelu", tie_word_embeddings=False)), both),
        "mt5": (hf.MT5ForConditionalGeneration,
                hf.MT5Config(**dict(vocab_size=99, d_model=32, num_layers=2, num_heads=4, d_ff=64, d_kv=8)), both),
        "pegasus": (hf.PegasusForConditionalGeneration, hf.PegasusConfig(**translation), both),
        "mbart": (hf.MBartForConditionalGeneration, hf.MBartConfig(**translation), both),
        "m2m": (hf.M2M100ForConditionalGeneration, hf.M2M100Config(**translation), both),
        "marian": (hf.MarianMTModel, hf.MarianConfig(**translation), both),
        "blenderbot": (hf.BlenderbotForConditionalGeneration, hf.BlenderbotConfig(**translation), both),
        "fsmt": (hf.FSMTForConditionalGeneration,
                 hf.FSMTConfig(**dict(langs=["a", "b"], src_vocab_size=99, tgt_vocab_size=99, d_model=32, encoder_layers=2,
                     decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64)),
                     both),
        "prophetnet": (hf.ProphetNetForConditionalGeneration,
                       hf.ProphetNetConfig(**dict(vocab_size=99, hidden_size=32, encoder_ffn_dim=64, decoder_ffn_dim=64,
                           num_encoder_layers=2, num_decoder_layers=2, num_encoder_attention_heads=4, num_decoder_attention_heads=4)),
                           both),
    }  # fmt: skip
    for name, (network, config, inputs) in cases.items():
        yield name, name, lambda n=network, c=config: n(c), lambda m, i=inputs: i


class Timeout(Exception):
    pass


def _expire(*_):
    raise Timeout(f"not done in {SECONDS_EACH} CPU seconds")


def _portable(text: str) -> str:
    "No folder of this machine in a message."
    return re.sub(r"/\S+/(?=(transformers|timm|torchvision|torch)/)", "", text)


def measure(library, family, name, make, example) -> dict:
    row = dict(library=library, family=family, model=name)
    signal.setitimer(signal.ITIMER_PROF, SECONDS_EACH)
    try:
        if library == "timm":
            with torch.device("meta"), contextlib.suppress(Exception):  # some can only be made for real
                row["parameters"] = sum(p.numel() for p in make().parameters())
        if row.get("parameters", 0) > LARGEST:
            return row | dict(status="skipped: too large for this sweep")
        torch.manual_seed(0)
        model = make()
        row["parameters"] = sum(p.numel() for p in model.parameters())
        inputs = example(model)
        start = time.process_time()
        symmetry = PermutationSymmetry.of(model, inputs)
        row |= dict(seconds=round(time.process_time() - start, 2), groups=len(symmetry.groups), coverage=round(symmetry.coverage(), 5))
        return row | dict(relative_error=symmetry.verify(model, inputs), status="kept", notes=[_portable(n) for n in symmetry.notes])
    except SymmetryError as error:
        return row | dict(status="refused" if "coverage" not in row else "NOT KEPT", notes=[_portable(str(error))[:300]])
    except Exception as error:
        return row | dict(status="could not be checked", notes=[f"{type(error).__name__}: {str(error)[:200]}"])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main(wanted):
    warnings.filterwarnings("ignore")
    signal.signal(signal.SIGPROF, _expire)
    libraries = dict(torchvision=torchvision_models, timm=timm_models, transformers=transformers_models)
    PermutationSymmetry.of(torch.nn.Linear(2, 2), torch.zeros(1, 2))  # torch.export loads half of PyTorch at its first use
    environment = dict(torch=torch.__version__, python=platform.python_version(), threads=torch.get_num_threads())
    rows = {(r["library"], r["model"]): r for r in json.loads(RESULTS.read_text())["rows"]} if RESULTS.exists() else {}
    for library, cases in libraries.items():
        for family, name, *case in cases():
            if wanted and not {library, name} & set(wanted):
                continue
            row = rows[library, name] = measure(library, family, name, *case)
            print(f"{library} {name}: {row['status']}, coverage {row.get('coverage')}, {row.get('seconds')} s", flush=True)
            RESULTS.write_text(json.dumps(dict(environment=environment, rows=list(rows.values())), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
