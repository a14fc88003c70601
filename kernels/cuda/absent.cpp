// The fallback where a program is linked without CUDA kernels: every kernel of kernels.h for Device::cuda, all of which refuse.
// These are explicit instantiations, which the linker drops where a .cu file brings the specialisation.
#include <stdexcept>
#include <string>

#include "kernels/kernels.h"

namespace lc::kernels {
namespace {

[[noreturn]] void absent(const char* kernel) {
  throw std::runtime_error(std::string(kernel) + ": this build has no CUDA; use --device cpu, or build where nvcc is found");
}

}  // namespace

template <Device D, class T>
void activation_backward(Queue, const ActivationBackward<T>&) {
  absent("activation_backward");
}
template <Device D, class T>
void sum(Queue, const Sum<T>&) {
  absent("sum");
}
template <Device D, class From, class To>
void convert(Queue, const Convert<From, To>&) {
  absent("convert");
}
template <Device D, class T>
void linear_forward(Queue, const LinearForward<T>&) {
  absent("linear_forward");
}
template <Device D, class T>
void linear_input_gradient(Queue, const LinearInputGradient<T>&) {
  absent("linear_input_gradient");
}
template <Device D, class T>
void linear_weight_gradient(Queue, const LinearWeightGradient<T>&) {
  absent("linear_weight_gradient");
}
template <Device D, class T>
void residual_norm_forward(Queue, const ResidualNormForward<T>&) {
  absent("residual_norm_forward");
}
template <Device D, class T>
void residual_norm_backward(Queue, const ResidualNormBackward<T>&) {
  absent("residual_norm_backward");
}
template <Device D, class T>
void l2_normalize_forward(Queue, const L2NormalizeForward<T>&) {
  absent("l2_normalize_forward");
}
template <Device D, class T>
void l2_normalize_backward(Queue, const L2NormalizeBackward<T>&) {
  absent("l2_normalize_backward");
}
template <Device D, class T>
void attention_forward(Queue, const AttentionForward<T>&) {
  absent("attention_forward");
}
template <Device D, class T>
void attention_backward(Queue, const AttentionBackward<T>&) {
  absent("attention_backward");
}
template <Device D, class T>
void rows_take(Queue, const RowsTake<T>&) {
  absent("rows_take");
}
template <Device D, class T>
void rows_add(Queue, const RowsAdd<T>&) {
  absent("rows_add");
}
template <Device D, class T>
void rank_embedding_forward(Queue, const RankEmbeddingForward<T>&) {
  absent("rank_embedding_forward");
}
template <Device D, class T>
void rank_embedding_backward(Queue, const RankEmbeddingBackward<T>&) {
  absent("rank_embedding_backward");
}
template <Device D, class T>
void infonce_forward(Queue, const InfoNceForward<T>&) {
  absent("infonce_forward");
}
template <Device D, class T>
void infonce_backward(Queue, const InfoNceBackward<T>&) {
  absent("infonce_backward");
}
template <Device D, class T>
void matching_head_forward(Queue, const MatchingHeadForward<T>&) {
  absent("matching_head_forward");
}
template <Device D, class T>
void matching_head_backward(Queue, const MatchingHeadBackward<T>&) {
  absent("matching_head_backward");
}
template <Device D, class T>
void cross_entropy_forward(Queue, const CrossEntropyForward<T>&) {
  absent("cross_entropy_forward");
}
template <Device D, class T>
void cross_entropy_backward(Queue, const CrossEntropyBackward<T>&) {
  absent("cross_entropy_backward");
}
template <Device D>
void rank_encoding(Queue, const RankEncoding&) {
  absent("rank_encoding");
}
template <Device D, class T>
void adamw(Queue, const AdamW<T>&) {
  absent("adamw");
}
template <Device D>
void gradient_norm(Queue, const GradientNorm&) {
  absent("gradient_norm");
}

template void activation_backward<Device::cuda>(Queue, const ActivationBackward<float>&);
template void activation_backward<Device::cuda>(Queue, const ActivationBackward<bf16>&);
template void sum<Device::cuda>(Queue, const Sum<float>&);
template void sum<Device::cuda>(Queue, const Sum<bf16>&);
template void convert<Device::cuda>(Queue, const Convert<float, float>&);
template void convert<Device::cuda>(Queue, const Convert<float, bf16>&);
template void convert<Device::cuda>(Queue, const Convert<bf16, float>&);
template void convert<Device::cuda>(Queue, const Convert<bf16, bf16>&);
template void linear_forward<Device::cuda>(Queue, const LinearForward<float>&);
template void linear_forward<Device::cuda>(Queue, const LinearForward<bf16>&);
template void linear_input_gradient<Device::cuda>(Queue, const LinearInputGradient<float>&);
template void linear_input_gradient<Device::cuda>(Queue, const LinearInputGradient<bf16>&);
template void linear_weight_gradient<Device::cuda>(Queue, const LinearWeightGradient<float>&);
template void linear_weight_gradient<Device::cuda>(Queue, const LinearWeightGradient<bf16>&);
template void residual_norm_forward<Device::cuda>(Queue, const ResidualNormForward<float>&);
template void residual_norm_forward<Device::cuda>(Queue, const ResidualNormForward<bf16>&);
template void residual_norm_backward<Device::cuda>(Queue, const ResidualNormBackward<float>&);
template void residual_norm_backward<Device::cuda>(Queue, const ResidualNormBackward<bf16>&);
template void l2_normalize_forward<Device::cuda>(Queue, const L2NormalizeForward<float>&);
template void l2_normalize_forward<Device::cuda>(Queue, const L2NormalizeForward<bf16>&);
template void l2_normalize_backward<Device::cuda>(Queue, const L2NormalizeBackward<float>&);
template void l2_normalize_backward<Device::cuda>(Queue, const L2NormalizeBackward<bf16>&);
template void attention_forward<Device::cuda>(Queue, const AttentionForward<float>&);
template void attention_forward<Device::cuda>(Queue, const AttentionForward<bf16>&);
template void attention_backward<Device::cuda>(Queue, const AttentionBackward<float>&);
template void attention_backward<Device::cuda>(Queue, const AttentionBackward<bf16>&);
template void rows_take<Device::cuda>(Queue, const RowsTake<float>&);
template void rows_take<Device::cuda>(Queue, const RowsTake<bf16>&);
template void rows_add<Device::cuda>(Queue, const RowsAdd<float>&);
template void rows_add<Device::cuda>(Queue, const RowsAdd<bf16>&);
template void rank_embedding_forward<Device::cuda>(Queue, const RankEmbeddingForward<float>&);
template void rank_embedding_forward<Device::cuda>(Queue, const RankEmbeddingForward<bf16>&);
template void rank_embedding_backward<Device::cuda>(Queue, const RankEmbeddingBackward<float>&);
template void rank_embedding_backward<Device::cuda>(Queue, const RankEmbeddingBackward<bf16>&);
template void infonce_forward<Device::cuda>(Queue, const InfoNceForward<float>&);
template void infonce_forward<Device::cuda>(Queue, const InfoNceForward<bf16>&);
template void infonce_backward<Device::cuda>(Queue, const InfoNceBackward<float>&);
template void infonce_backward<Device::cuda>(Queue, const InfoNceBackward<bf16>&);
template void matching_head_forward<Device::cuda>(Queue, const MatchingHeadForward<float>&);
template void matching_head_forward<Device::cuda>(Queue, const MatchingHeadForward<bf16>&);
template void matching_head_backward<Device::cuda>(Queue, const MatchingHeadBackward<float>&);
template void matching_head_backward<Device::cuda>(Queue, const MatchingHeadBackward<bf16>&);
template void cross_entropy_forward<Device::cuda>(Queue, const CrossEntropyForward<float>&);
template void cross_entropy_forward<Device::cuda>(Queue, const CrossEntropyForward<bf16>&);
template void cross_entropy_backward<Device::cuda>(Queue, const CrossEntropyBackward<float>&);
template void cross_entropy_backward<Device::cuda>(Queue, const CrossEntropyBackward<bf16>&);
template void rank_encoding<Device::cuda>(Queue, const RankEncoding&);
template void adamw<Device::cuda>(Queue, const AdamW<float>&);
template void adamw<Device::cuda>(Queue, const AdamW<bf16>&);
template void gradient_norm<Device::cuda>(Queue, const GradientNorm&);

}  // namespace lc::kernels
