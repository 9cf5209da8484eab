# Where libtorch comes from: PyTorch's wheel with ORRERY_WITH_WHEEL, whose CMake folder
# ORRERY_TORCH_PREFIX names (torch.utils.cmake_prefix_path in Python), else the package
# libtorch-dev. Sets ORRERY_TORCH, the target to link.
option(ORRERY_WITH_WHEEL "Build the engine on PyTorch's wheel" OFF)
set(ORRERY_TORCH_PREFIX "" CACHE PATH "CMake folder inside PyTorch's wheel")
if(ORRERY_WITH_WHEEL AND NOT ORRERY_TORCH_PREFIX)
  message(FATAL_ERROR "no wheel: ORRERY_TORCH_PREFIX=$(scripts/install-torch --prefix)")
endif()

if(ORRERY_WITH_WHEEL)
  # Not the wheel's TorchConfig.cmake: that wants nvcc and a CUDA language, and the engine links the
  # host's part alone. Search nowhere else: the package's libraries have the same names.
  get_filename_component(_root "${ORRERY_TORCH_PREFIX}/../.." ABSOLUTE)
  foreach(_name c10 torch_cpu)
    find_library(ORRERY_LIB_${_name} ${_name} PATHS ${_root}/lib NO_DEFAULT_PATH NO_CACHE REQUIRED)
  endforeach()
  file(STRINGS ${_root}/include/torch/headeronly/version.h _version
       REGEX "\"[0-9.]+\"")
  string(REGEX REPLACE "[^0-9.]" "" _version "${_version}")
  message(STATUS "libtorch ${_version} of the wheel in ${_root}")
  # libtorch_cpu.so finds what it needs beside itself by its own run path.
  add_library(orrery_wheel INTERFACE)
  target_include_directories(orrery_wheel SYSTEM INTERFACE ${_root}/include)
  target_link_libraries(orrery_wheel INTERFACE ${ORRERY_LIB_torch_cpu} ${ORRERY_LIB_c10})
  # Headers of CUDA, for code that talks to a device; nothing here needs one at build time.
  find_package(CUDAToolkit QUIET)
  if(CUDAToolkit_FOUND)
    message(STATUS "CUDA headers ${CUDAToolkit_VERSION}")
  endif()
  set(ORRERY_TORCH orrery_wheel)
else()
  find_package(Torch REQUIRED)
  add_library(orrery_libtorch INTERFACE)
  target_include_directories(orrery_libtorch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
  target_link_libraries(orrery_libtorch INTERFACE ${TORCH_LIBRARIES})
  set(ORRERY_TORCH orrery_libtorch)
endif()
