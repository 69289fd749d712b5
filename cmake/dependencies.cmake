# Outside libraries as imported targets. Reasons for each: docs/dependencies.md.

# libtorch: targets made by hand, because find_package(Torch) on the PyPI wheel asks for the whole CUDA toolkit.
if(NOT EXISTS ${LIMNER_LIBTORCH}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "no libtorch at ${LIMNER_LIBTORCH}: run script/bootstrap, or pass -DLIMNER_LIBTORCH=DIR")
endif()
add_library(limner_torch INTERFACE)
add_library(limner::torch ALIAS limner_torch)
target_include_directories(limner_torch SYSTEM INTERFACE
  ${LIMNER_LIBTORCH}/include ${LIMNER_LIBTORCH}/include/torch/csrc/api/include)
target_link_libraries(limner_torch INTERFACE
  ${LIMNER_LIBTORCH}/lib/libtorch_cpu.so ${LIMNER_LIBTORCH}/lib/libc10.so)
# at::parallel_for is an OpenMP region inside a header: without this flag it compiles to a plain loop on one thread.
target_compile_options(limner_torch INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-fopenmp>")
target_link_libraries(limner_torch INTERFACE ${LIMNER_LIBTORCH}/lib/libgomp.so.1)
# RPATH, not RUNPATH: libtorch_cpu finds its own CUDA stub libraries only through an inherited RPATH. The build's
# comes from CMake, which puts another in its place where a program is installed.
target_link_options(limner_torch INTERFACE -Wl,--disable-new-dtags -Wl,-rpath-link,${LIMNER_LIBTORCH}/lib)

if(LIMNER_CUDA)
  if(NOT EXISTS ${LIMNER_LIBTORCH}/lib/libtorch_cuda.so)
    message(FATAL_ERROR "LIMNER_CUDA wants a CUDA libtorch, and ${LIMNER_LIBTORCH}/lib has no libtorch_cuda.so: "
      "pass -DLIMNER_LIBTORCH=DIR, for instance the torch folder of a Python installation")
  endif()
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 75 80 86 89 90)
  endif()
  set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 knows no nvcc flag for C++20
  enable_language(CUDA)
  target_include_directories(limner_torch SYSTEM INTERFACE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  # libtorch_cuda registers its operators when it is loaded; nothing of ours names a symbol of it.
  target_link_libraries(limner_torch INTERFACE ${LIMNER_LIBTORCH}/lib/libc10_cuda.so
    -Wl,--push-state,--no-as-needed ${LIMNER_LIBTORCH}/lib/libtorch_cuda.so -Wl,--pop-state)
endif()

find_package(nlohmann_json 3.11 REQUIRED)
find_package(fmt 9 REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Threads REQUIRED)

find_package(PkgConfig)
if(PkgConfig_FOUND)
  pkg_check_modules(VIPS IMPORTED_TARGET vips-cpp)
  pkg_check_modules(ICU IMPORTED_TARGET icu-uc)
  pkg_check_modules(CURL IMPORTED_TARGET libcurl>=7.85)
  pkg_check_modules(TOML IMPORTED_TARGET tomlplusplus)
  pkg_check_modules(PROMETHEUS IMPORTED_TARGET prometheus-cpp-core)
endif()
find_package(OpenSSL 3)

# Debian's SOCI comes without a CMake configuration, and its headers want Boost's; its back ends are loaded when a
# database is opened.
find_path(SOCI_INCLUDE_DIR soci/soci.h)
find_path(SOCI_BOOST_DIR boost/fusion/algorithm/iteration/for_each.hpp)
find_library(SOCI_CORE_LIBRARY soci_core)
if(SOCI_INCLUDE_DIR AND SOCI_BOOST_DIR AND SOCI_CORE_LIBRARY)
  set(SOCI_FOUND TRUE)
  add_library(limner_soci INTERFACE)
  add_library(limner::soci ALIAS limner_soci)
  target_include_directories(limner_soci SYSTEM INTERFACE ${SOCI_INCLUDE_DIR} ${SOCI_BOOST_DIR})
  target_link_libraries(limner_soci INTERFACE ${SOCI_CORE_LIBRARY})
endif()

if(LIMNER_TESTS)
  find_package(GTest REQUIRED)
endif()
