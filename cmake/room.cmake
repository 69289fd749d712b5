# limner_room(NAME SOURCES ... [USES ...] [TORCH] [TESTS ...] [LABELS ...])
#
# A room is one static library limner::NAME. USES names the rooms and outside targets it may include (its row of the
# table in ARCHITECTURE.md). TORCH adds libtorch and its precompiled header. TESTS are linked to NAME_test, one ctest
# entry per room, found by `ctest -L unit`.
include(CMakeParseArguments)

function(limner_room name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;USES;TESTS;LABELS" ${ARGN})
  add_library(limner_${name} STATIC ${ARG_SOURCES})
  add_library(limner::${name} ALIAS limner_${name})
  target_include_directories(limner_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(limner_${name} PUBLIC ${ARG_USES})
  if(ARG_TORCH)
    limner_use_torch(limner_${name})
  endif()
  if(ARG_TESTS AND LIMNER_TESTS)
    add_executable(${name}_test ${ARG_TESTS})
    target_link_libraries(${name}_test PRIVATE limner_${name} GTest::gtest GTest::gtest_main)
    target_compile_definitions(${name}_test PRIVATE LIMNER_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    if(ARG_TORCH)
      limner_use_torch(${name}_test)
    endif()
    if(NOT ARG_LABELS)
      set(ARG_LABELS unit)
    endif()
    add_test(NAME ${name} COMMAND ${name}_test)
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 900
      ENVIRONMENT "OMP_NUM_THREADS=2")
  endif()
endfunction()

# The precompiled ATen header is built once and shared: it takes a torch file from 8 s to 2 s. Programs get -fPIC like
# the libraries, since a header compiled with other flags is refused.
function(limner_use_torch target)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-fPIC>")
  target_link_libraries(${target} PUBLIC limner::torch)
  target_precompile_headers(${target} REUSE_FROM limner_torch_pch)
endfunction()

# As limner_use_torch, for a module that passes libtorch on to nobody.
function(limner_use_torch_privately target)
  target_link_libraries(${target} PRIVATE limner::torch)
  target_precompile_headers(${target} REUSE_FROM limner_torch_pch)
endfunction()
