#include "engine/nn/tensor_source.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "engine/weights/testing.h"

namespace limner::engine::nn {
namespace {

using weights::DType;
using weights::TensorToWrite;
using weights::Weights;
using weights::testing::TemporaryFolder;

class TensorSourceTest : public ::testing::Test {
 protected:
  void add(const std::string& name, const at::Tensor& tensor) {
    tensors_.emplace_back(name, tensor.contiguous());
  }

  std::shared_ptr<const Weights> weights() {
    std::vector<TensorToWrite> list;
    for (const auto& [name, tensor] : tensors_) {
      const DType dtype = tensor.scalar_type() == at::kHalf       ? DType::kF16
                          : tensor.scalar_type() == at::kBFloat16 ? DType::kBF16
                          : tensor.scalar_type() == at::kLong     ? DType::kI64
                                                                  : DType::kF32;
      list.push_back(
          {name, dtype, tensor.sizes().vec(),
           std::span(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes())});
    }
    const auto file = folder_.path() / "unet" / "model.safetensors";
    std::filesystem::create_directories(file.parent_path());
    weights::write_safetensors(file, list).value_or_throw();
    return Weights::open_component(file.parent_path()).value_or_throw();
  }

  TensorSource source(Placement placement = {}) { return TensorSource(weights(), placement); }

  TemporaryFolder folder_;
  std::vector<std::pair<std::string, at::Tensor>> tensors_;
};

std::string numbered(std::string name, int number) {
  return name.append(std::to_string(number));
}

template <typename Action>
std::string failure(Action action, ErrorCode want = ErrorCode::kInvalidModel) {
  try {
    action();
  } catch (const Failure& thrown) {
    EXPECT_EQ(name(thrown.error().code), name(want));
    return thrown.what();
  }
  return "";
}

TEST_F(TensorSourceTest, TakesWithoutACopyWhereTheDtypeIsTheStoredOne) {
  for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    tensors_.clear();
    const at::Tensor w = at::randn({4, 3}).to(dtype);
    add("w", w);
    const auto opened = weights();
    const TensorSource root(opened, {.storage = dtype, .compute = at::kFloat});
    const at::Tensor taken = root.take("w", {4, 3});
    EXPECT_EQ(taken.const_data_ptr(), static_cast<const void*>(opened->find("w")->bytes.data()));
    EXPECT_TRUE(at::equal(taken, w));
    root.finish();
  }
}

TEST_F(TensorSourceTest, ConvertsToStorageAndComputeDtypes) {
  const at::Tensor w = at::randn({5, 7}).to(at::kHalf), b = at::randn({5}).to(at::kHalf);
  add("layer.weight", w);
  add("layer.bias", b);
  const TensorSource layer = source({.storage = at::kBFloat16, .compute = at::kFloat}).at("layer");
  const at::Tensor weight = layer.take("weight", {5, 7});
  EXPECT_EQ(weight.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(weight, w.to(at::kBFloat16)));
  const at::Tensor bias = layer.take_small("bias", {5});
  EXPECT_EQ(bias.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(bias, b.to(at::kFloat)));
  EXPECT_EQ(layer.prefix(), "layer");
  EXPECT_EQ(layer.at(std::size_t{3}).name_of("x"), "layer.3.x");
}

TEST_F(TensorSourceTest, ConvolutionsComeChannelsLast) {
  const std::vector<std::vector<std::int64_t>> shapes = {
      {6, 4, 3, 3}, {320, 130, 3, 3}, {5, 7, 1, 1}, {1, 1, 3, 3}, {4, 3, 2, 5}, {0, 4, 3, 3}};
  for (const auto& shape : shapes) {
    for (const at::ScalarType storage : {at::kFloat, at::kBFloat16}) {
      tensors_.clear();
      const at::Tensor w = at::randn(shape);
      add("w", w);
      const at::Tensor taken =
          source({.storage = storage, .compute = at::kFloat}).take_channels_last("w", shape);
      EXPECT_TRUE(taken.is_contiguous(at::MemoryFormat::ChannelsLast));
      EXPECT_EQ(taken.scalar_type(), storage);
      EXPECT_TRUE(at::equal(taken, w.to(storage)));
    }
  }
}

TEST_F(TensorSourceTest, TensorsOutliveTheSource) {
  const at::Tensor w = at::arange(1000, at::kFloat);
  add("w", w);
  at::Tensor taken;
  {
    taken = source().take("w", {1000});
  }
  std::filesystem::remove_all(folder_.path() / "unet");
  EXPECT_TRUE(at::equal(taken, w));
}

TEST_F(TensorSourceTest, ATensorMayBeTakenTwice) {
  add("tied", at::ones({2}));
  const TensorSource root = source();
  EXPECT_TRUE(at::equal(root.take("tied", {2}), root.take("tied", {2})));
  root.finish();
}

TEST_F(TensorSourceTest, TheMatrixOfAOneByOneConvolutionServesALinearLayer) {
  const at::Tensor w = at::randn({3, 2, 1, 1});
  add("w", w);
  const TensorSource root = source();
  EXPECT_TRUE(at::equal(root.take("w", {3, 2}), w.reshape({3, 2})));
  EXPECT_NE(failure([&] { root.take("w", {3}); }), "");
  EXPECT_NE(failure([&] { root.take("w", {3, 2, 1, 1, 1}); }), "");
}

TEST_F(TensorSourceTest, EmptyAndScalarTensors) {
  add("empty", at::empty({0, 4}));
  add("scalar", at::full({}, 2.5));
  const TensorSource root = source();
  EXPECT_EQ(root.take("empty", {0, 4}).numel(), 0);
  EXPECT_EQ(root.take("scalar", {}).item<float>(), 2.5f);
}

TEST_F(TensorSourceTest, UnalignedDataIsCopied) {
  // One byte before the floats: the reference writer would not do that, but the format allows it.
  const float values[2] = {1.5f, -2.0f};
  std::string data = "x";
  data.append(reinterpret_cast<const char*>(values), sizeof(values));
  std::string header = R"({"pad":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                       R"("w":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  const auto file =
      folder_.write("unet/model.safetensors", weights::testing::raw_safetensors(header, data));
  const TensorSource root(Weights::open_file(file).value_or_throw(), {});
  EXPECT_TRUE(at::equal(root.take("w", {2}), at::tensor({1.5f, -2.0f})));
}

TEST_F(TensorSourceTest, MissingTensorsAreNamedWithTheNearest) {
  add("conv_in.weight", at::ones({1}));
  const TensorSource root = source();
  const std::string message = failure([&] { root.take("conv_inn.weight", {1}); });
  EXPECT_EQ(message, "unet: tensor 'conv_inn.weight' is missing (did you mean conv_in.weight?)");
  EXPECT_TRUE(root.has("conv_in.weight"));
  EXPECT_FALSE(root.at("conv_in").has("bias"));
}

TEST_F(TensorSourceTest, OtherShapesAreNamed) {
  add("down_blocks.0.w", at::ones({1, 2}));
  EXPECT_EQ(failure([&] { source().at("down_blocks").at(std::size_t{0}).take("w", {3, 4}); }),
            "unet: tensor 'down_blocks.0.w' has shape [1, 2], want [3, 4]");
}

TEST_F(TensorSourceTest, NaNAndInfinityAreNamed) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
        -std::numeric_limits<double>::infinity()}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
      tensors_.clear();
      at::Tensor w = at::ones({3'000'000}, dtype);  // several threads' worth
      w[2'999'999] = bad;
      add("mid.w", w);
      const TensorSource root = source({.storage = dtype, .compute = at::kFloat});
      const std::string want = "unet: tensor 'mid.w' holds a NaN or an infinity";
      EXPECT_EQ(failure([&] { root.take("mid.w", {3'000'000}); }).substr(0, want.size()), want);
      EXPECT_EQ(failure([&] { root.take_small("mid.w", {3'000'000}); }).substr(0, want.size()),
                want);
    }
  }
}

TEST_F(TensorSourceTest, OtherDtypesAreUnsupportedUnlessSkipped) {
  add("position_ids", at::arange(77, at::kLong).reshape({1, 77}));
  const TensorSource root = source();
  EXPECT_EQ(failure([&] { root.take("position_ids", {1, 77}); }, ErrorCode::kUnsupported),
            "unet: tensor 'position_ids' is stored as I64; this build reads F32, F16 and BF16");
  const TensorSource fresh = source();
  EXPECT_NE(failure([&] { fresh.finish(); }), "");
  fresh.skip("position_ids");
  fresh.finish();
}

TEST_F(TensorSourceTest, LeftOverTensorsAreNamed) {
  for (int i = 0; i < 8; ++i) add(numbered("extra", i), at::ones({1}));
  add("used", at::ones({1}));
  const TensorSource root = source();
  root.take("used", {1});
  EXPECT_EQ(failure([&] { root.finish(); }),
            "unet: 8 tensors left over that the config has no place for: extra0, extra1, extra2, "
            "extra3, extra4, ...");
}

TEST_F(TensorSourceTest, AFileCutOffUnderUsIsAnErrorAndNoCrash) {
  add("w", at::ones({1'000'000}));
  const TensorSource root = source();
  std::filesystem::resize_file(folder_.path() / "unet" / "model.safetensors", 4096);
  EXPECT_NE(failure([&] { root.take("w", {1'000'000}); }).find("was changed"), std::string::npos);
}

// Resident memory of this process, in bytes.
std::int64_t resident() {
  std::ifstream stream("/proc/self/statm");
  std::int64_t total = 0, pages = 0;
  stream >> total >> pages;
  return pages * 4096;
}

TEST_F(TensorSourceTest, ALoadedModelIsInMemoryOnce) {
  constexpr std::int64_t kEach = 8 << 20, kCount = 12;  // elements of 2 bytes
  for (int i = 0; i < kCount; ++i)
    add(numbered("w", i), at::ones({kEach / 64, 64, 1, 1}, at::kBFloat16));
  const auto opened = weights();
  tensors_.clear();
  for (const bool zero_copy : {true, false}) {
    const std::int64_t before = resident();
    const TensorSource root(
        opened, {.storage = zero_copy ? at::kBFloat16 : at::kHalf, .compute = at::kFloat});
    std::vector<at::Tensor> taken;
    for (int i = 0; i < kCount; ++i)
      taken.push_back(root.take(numbered("w", i), {kEach / 64, 64, 1, 1}));
    const double size = kEach * kCount * 2.0;
    EXPECT_LT(static_cast<double>(resident() - before), 1.1 * size) << zero_copy;
    for (int i = 0; i < kCount; ++i) root.release(numbered("w", i));
  }
}

}  // namespace
}  // namespace limner::engine::nn
