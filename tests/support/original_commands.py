"""The three commands of the original's manual, in shorter lines."""

AUTODECODER = r"""
accelerate launch --main_process_port 29510 --config_file acc_configs/gpu4.yaml \
    main_zero123plus_v4_batch_code.py big --workspace runs/zerp123plus_batch/workspace_ablation --lr 1e-4 \
    --num_epochs 20001 --eval_iter 20 --save_iter 20 --lr_scheduler Plat --lr_scheduler_patience 100 \
    --lr_scheduler_factor 0.7 --prob_cam_jitter 0 --prob_grid_distortion 0 --input_size 320 --num_input_views 6 \
    --num_views 26 --lambda_splatter 1 --lambda_rendering 1 --lambda_alpha 0 --lambda_lpips 1 --desc \
    'ablation_2dot1_fixed_encode_range_4gpus-mix_diffusion_interval_10-resume20240315' --data_path_rendering \
    ${DATA_DIR_BATCH_RENDERING} --data_path_splatter_gt ${DATA_DIR_BATCH_SPLATTER_GT_ROOT} --set_random_seed \
    --batch_size 1 --num_workers 1 --plot_attribute_histgram 'scale' --skip_predict_x0 --scale_act 'biased_softplus' \
    --scale_act_bias -3 --scale_bias_learnable --model_type Zero123PlusGaussianCode --splatter_guidance_interval 1 \
    --save_train_pred -1 --decode_splatter_to_128 --decoder_upblocks_interpolate_mode "last_layer" \
    --codes_from_encoder --mix_diffusion_interval 10
"""
UNET = r"""
accelerate launch --config_file acc_configs/gpu4.yaml main_zero123plus_v4_batch_code_unet.py big --workspace \
    runs/zerp123plus_batch/workspace_ablation --num_epochs 10001 --eval_iter 20 --save_iter 20 --lr_scheduler Plat \
    --lr 2e-6 --min_lr_scheduled 1e-10 --lr_scheduler_patience 100 --lr_scheduler_factor 0.7 --lr_schedule_by_train \
    --prob_cam_jitter 0 --input_size 320 --num_input_views 6 --num_views 20 --lambda_splatter 0 --lambda_rendering 1 \
    --lambda_alpha 0 --lambda_lpips 0 --desc 'ablation4_unet_fixed_encode_range-4gpus-resumeunet20240320_ep140' \
    --data_path_rendering ${DATA_DIR_BATCH_RENDERING} --data_path_splatter_gt ${DATA_DIR_BATCH_SPLATTER_GT_ROOT} \
    --set_random_seed --batch_size 1 --num_workers 1 --plot_attribute_histgram 'scale' --skip_predict_x0 --scale_act \
    'biased_softplus' --scale_act_bias -3 --scale_bias_learnable --scale_clamp_max -2 --scale_clamp_min -10 \
    --model_type Zero123PlusGaussianCodeUnet --splatter_guidance_interval 1 --save_train_pred -1 \
    --decode_splatter_to_128 --decoder_upblocks_interpolate_mode "last_layer" --resume \
    "path/to/your/trained/auto-decoder"
"""
INFERENCE = r"""
accelerate launch --config_file acc_configs/gpu1.yaml main_zero123plus_v4_batch_code_inference.py big \
    --workspace runs/zerp123plus_batch/workspace_debug --lr 2e-4 --num_epochs 10001 --eval_iter 10 --save_iter 10 \
    --lr_scheduler Plat --lr_scheduler_patience 100 --lr_scheduler_factor 0.7 --prob_cam_jitter 0 --input_size 320 \
    --num_input_views 6 --num_views 20 --lambda_splatter 0 --lambda_rendering 1 --lambda_alpha 0 --lambda_lpips 0 \
    --desc 'debug_encode_splatter' --data_path_rendering ${DATA_DIR_BATCH_RENDERING} --data_path_splatter_gt \
    ${DATA_DIR_BATCH_SPLATTER_GT_ROOT} --set_random_seed --batch_size 1 --num_workers 1 --plot_attribute_histgram \
    'scale' --skip_predict_x0 --scale_act 'biased_softplus' --scale_act_bias -3 --scale_bias_learnable \
    --scale_clamp_max -2 --scale_clamp_min -10 --model_type Zero123PlusGaussianCode --splatter_guidance_interval 1 \
    --save_train_pred -1 --decode_splatter_to_128 --decoder_upblocks_interpolate_mode "last_layer" \
    --codes_from_diffusion --resume "path/to/your/finetuned-unet"
"""
