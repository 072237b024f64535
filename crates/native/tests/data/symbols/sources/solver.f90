module grid
contains
  subroutine advance(values, count)
    integer, intent(in) :: count
    real(8), intent(inout) :: values(count)
    values = values * 2.0d0
  end subroutine
end module

subroutine dgelsd(count, values)
  use grid
  integer, intent(in) :: count
  real(8), intent(inout) :: values(count)
  call advance(values, count)
  values(1) = 0.0d0
end subroutine
