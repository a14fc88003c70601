// Every kernel of kernels.h for Device::none: nothing is computed. The engine chooses it for a queue that is imagined, so that a whole
// training step can be walked, counting memory and operations, without either.
#include "kernels/kernels.h"

namespace lc::kernels {

template <>
void activation_backward<Device::none>(Queue, const ActivationBackward<float>&) {}
template <>
void activation_backward<Device::none>(Queue, const ActivationBackward<bf16>&) {}
template <>
void sum<Device::none>(Queue, const Sum<float>&) {}
template <>
void sum<Device::none>(Queue, const Sum<bf16>&) {}
template <>
void convert<Device::none>(Queue, const Convert<float, float>&) {}
template <>
void convert<Device::none>(Queue, const Convert<float, bf16>&) {}
template <>
void convert<Device::none>(Queue, const Convert<bf16, float>&) {}
template <>
void convert<Device::none>(Queue, const Convert<bf16, bf16>&) {}
template <>
void linear_forward<Device::none>(Queue, const LinearForward<float>&) {}
template <>
void linear_forward<Device::none>(Queue, const LinearForward<bf16>&) {}
template <>
void linear_input_gradient<Device::none>(Queue, const LinearInputGradient<float>&) {}
template <>
void linear_input_gradient<Device::none>(Queue, const LinearInputGradient<bf16>&) {}
template <>
void linear_weight_gradient<Device::none>(Queue, const LinearWeightGradient<float>&) {}
template <>
void linear_weight_gradient<Device::none>(Queue, const LinearWeightGradient<bf16>&) {}
template <>
void residual_norm_forward<Device::none>(Queue, const ResidualNormForward<float>&) {}
template <>
void residual_norm_forward<Device::none>(Queue, const ResidualNormForward<bf16>&) {}
template <>
void residual_norm_backward<Device::none>(Queue, const ResidualNormBackward<float>&) {}
template <>
void residual_norm_backward<Device::none>(Queue, const ResidualNormBackward<bf16>&) {}
template <>
void l2_normalize_forward<Device::none>(Queue, const L2NormalizeForward<float>&) {}
template <>
void l2_normalize_forward<Device::none>(Queue, const L2NormalizeForward<bf16>&) {}
template <>
void l2_normalize_backward<Device::none>(Queue, const L2NormalizeBackward<float>&) {}
template <>
void l2_normalize_backward<Device::none>(Queue, const L2NormalizeBackward<bf16>&) {}
template <>
void attention_forward<Device::none>(Queue, const AttentionForward<float>&) {}
template <>
void attention_forward<Device::none>(Queue, const AttentionForward<bf16>&) {}
template <>
void attention_backward<Device::none>(Queue, const AttentionBackward<float>&) {}
template <>
void attention_backward<Device::none>(Queue, const AttentionBackward<bf16>&) {}
template <>
void rows_take<Device::none>(Queue, const RowsTake<float>&) {}
template <>
void rows_take<Device::none>(Queue, const RowsTake<bf16>&) {}
template <>
void rows_add<Device::none>(Queue, const RowsAdd<float>&) {}
template <>
void rows_add<Device::none>(Queue, const RowsAdd<bf16>&) {}
template <>
void rank_embedding_forward<Device::none>(Queue, const RankEmbeddingForward<float>&) {}
template <>
void rank_embedding_forward<Device::none>(Queue, const RankEmbeddingForward<bf16>&) {}
template <>
void rank_embedding_backward<Device::none>(Queue, const RankEmbeddingBackward<float>&) {}
template <>
void rank_embedding_backward<Device::none>(Queue, const RankEmbeddingBackward<bf16>&) {}
template <>
void infonce_forward<Device::none>(Queue, const InfoNceForward<float>&) {}
template <>
void infonce_forward<Device::none>(Queue, const InfoNceForward<bf16>&) {}
template <>
void infonce_backward<Device::none>(Queue, const InfoNceBackward<float>&) {}
template <>
void infonce_backward<Device::none>(Queue, const InfoNceBackward<bf16>&) {}
template <>
void matching_head_forward<Device::none>(Queue, const MatchingHeadForward<float>&) {}
template <>
void matching_head_forward<Device::none>(Queue, const MatchingHeadForward<bf16>&) {}
template <>
void matching_head_backward<Device::none>(Queue, const MatchingHeadBackward<float>&) {}
template <>
void matching_head_backward<Device::none>(Queue, const MatchingHeadBackward<bf16>&) {}
template <>
void cross_entropy_forward<Device::none>(Queue, const CrossEntropyForward<float>&) {}
template <>
void cross_entropy_forward<Device::none>(Queue, const CrossEntropyForward<bf16>&) {}
template <>
void cross_entropy_backward<Device::none>(Queue, const CrossEntropyBackward<float>&) {}
template <>
void cross_entropy_backward<Device::none>(Queue, const CrossEntropyBackward<bf16>&) {}
template <>
void rank_encoding<Device::none>(Queue, const RankEncoding&) {}
template <>
void adamw<Device::none>(Queue, const AdamW<float>&) {}
template <>
void adamw<Device::none>(Queue, const AdamW<bf16>&) {}
template <>
void gradient_norm<Device::none>(Queue, const GradientNorm&) {}

}  // namespace lc::kernels
