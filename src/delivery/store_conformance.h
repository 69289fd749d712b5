// The tests that every ArtifactStore passes (store_conformance.cpp), for the test programs to
// instantiate: INSTANTIATE_TEST_SUITE_P(Local, StoreConformance, testing::Values(make_local)).
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "delivery/store.h"

namespace limner::delivery {

// A store that starts empty, and how a stranger fetches a URL it signed.
class StoreUnderTest {
 public:
  virtual ~StoreUnderTest() = default;
  virtual ArtifactStore& store() = 0;
  // Nothing when the URL does not open.
  virtual std::optional<std::vector<std::uint8_t>> fetch(const std::string& url) = 0;
};

using MakeStore = std::function<std::unique_ptr<StoreUnderTest>()>;

class StoreConformance : public testing::TestWithParam<MakeStore> {
 protected:
  void SetUp() override { under_test_ = GetParam()(); }
  ArtifactStore& store() { return under_test_->store(); }
  StoreUnderTest& under_test() { return *under_test_; }

  // Stores `text`; the test fails when that does.
  StoredObject put(const Place& place, std::string_view text);
  // Keys of all objects that `request` lists, through all pages.
  std::vector<std::string> list(ListRequest request);

 private:
  std::unique_ptr<StoreUnderTest> under_test_;
};

}  // namespace limner::delivery
